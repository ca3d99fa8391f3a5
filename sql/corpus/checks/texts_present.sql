-- A row per kept caption without a text or an id.
select position
from classified
where reason is null and (text is null or text = '' or caption_id is null)
limit 1
