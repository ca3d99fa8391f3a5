-- corpus: one row per caption kept, of a batch of those that were taken for one, in file order.
select
    coalesce(late.caption_id, batch.caption_id) as caption_id,
    batch.source,
    batch.split,
    batch.image_id,
    batch.text,
    batch.file,
    batch.position,
    batch.item
from batch
left join late using (position, item)
where late.reason is null
order by batch.position, batch.item
