-- synonyms: one row per class and synonym (as the vocabulary writes it) with the captions in which it
-- names the class.
with spans as (
    select
        caption_id,
        unnest(spans, recursive := true)
    from labels
)

select
    class,
    synonym,
    count(distinct caption_id) as captions
from spans
group by class, synonym
order by class, captions desc, synonym
