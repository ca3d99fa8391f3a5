-- corpus: one row per caption kept, in file order.
select
    caption_id,
    $source as source,
    $split as split,
    image_id,
    text,
    $file as file,
    position
from classified
where reason is null
order by position
