-- named: one row per caption that was looked at and class that it names.
create or replace temp table named as
with numbered as (
    select
        row_number() over (order by corpus.caption_id) as caption,
        labels.classes
    from corpus
    left join labels using (caption_id)
    where md5_number_lower(corpus.caption_id) % $every = 0
),

unnested as (
    select
        caption,
        unnest(classes) as class
    from numbered
)

select distinct
    unnested.caption,
    classes.class_index
from unnested
inner join classes using (class)
