-- A row per kept caption without a text or an id.
select
    position,
    caption_id,
    text
from classified
where reason is null and (text is null or text = '' or caption_id is null)
