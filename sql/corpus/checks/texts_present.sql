-- A row per caption without a text or an id.
select
    position,
    caption_id,
    text
from judged
where reason is null and (text is null or text = '' or caption_id is null)
