-- examples: one row per caption to be shown, in an order that only its id decides.
with named as (
    select
        corpus.caption_id,
        corpus.text,
        labels.classes,
        labels.spans
    from labels
    inner join corpus using (caption_id)
    where length(corpus.text) <= 140
)

select
    text,
    classes,
    spans
from named
order by md5(caption_id), caption_id
limit 200
