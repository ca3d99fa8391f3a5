-- neighbours: one row per class and word that stands right beside its mentions, the 12 most frequent
-- of each class. `before` counts the captions where it stands in front, `behind` where it follows.
with mentions as (
    select
        caption_id,
        unnest(spans, recursive := true)
    from labels
),

sides as (
    select
        mentions.class,
        regexp_extract(
            lower(corpus.text[: mentions.start]), '([\pL\pM\pN]+)[\s\pZ''-]*$', 1
        ) as word_before,
        regexp_extract(
            lower(corpus.text[mentions."end" + 1 :]), '^[\s\pZ''-]*([\pL\pM\pN]+)', 1
        ) as word_behind
    from mentions
    inner join corpus using (caption_id)
),

counted as (
    select
        class,
        word_before as word,
        1 as before,
        0 as behind
    from sides
    union all
    select
        class,
        word_behind as word,
        0 as before,
        1 as behind
    from sides
)

select
    class,
    word,
    sum(before)::bigint as before,
    sum(behind)::bigint as behind
from counted
where word != ''
group by class, word
qualify row_number() over (partition by class order by count(*) desc, word) <= 12
order by class, count(*) desc, word
