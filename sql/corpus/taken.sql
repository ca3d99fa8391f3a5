-- taken: one row per record that is a caption as far as it shows by itself, in file order,
-- which DuckDB keeps (preserve_insertion_order).
select
    caption_id,
    $source as source,
    $split as split,
    image_id,
    text,
    $file as file,
    position,
    item
from judged
where reason is null
