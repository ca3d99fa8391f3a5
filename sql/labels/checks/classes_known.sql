-- A row per label whose class is not in the vocabulary.
with named as (
    select
        caption_id,
        unnest(classes) as class
    from labels
)

select
    caption_id,
    class
from named
anti join classes using (class)
