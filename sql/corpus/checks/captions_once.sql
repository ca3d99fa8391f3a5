-- A row per caption_id that was kept more than once, with the places in the file.
select
    caption_id,
    list(position order by position)[:5] as positions
from classified
where reason is null
group by caption_id
having count(*) > 1
