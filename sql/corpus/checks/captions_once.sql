-- A row per caption_id that was kept more than once, with the places in the file. Ids of different
-- hashes are not the same: only those that share one, and those made up, are compared.
select
    caption_id,
    list(position order by position)[:5] as positions
from corpus
where
    hash(caption_id) in (select id_hash from repeated)
    or caption_id in (select caption_id from late)
group by caption_id
having count(*) > 1
