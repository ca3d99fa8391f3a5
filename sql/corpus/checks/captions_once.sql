-- A row per caption_id that was kept twice.
select caption_id
from classified
where reason is null
group by caption_id
having count(*) > 1
limit 1
