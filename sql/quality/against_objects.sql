-- against_objects: one row per class: how many captions of images with known objects show it, name
-- it, and name it rightly; and the same for images, whose captions are pooled.
with shown as (
    select
        corpus.caption_id,
        image_id,
        objects.class
    from corpus
    inner join objects using (image_id)
),

unnested as (
    select
        caption_id,
        unnest(classes) as class
    from labels
),

named as (
    select
        unnested.caption_id,
        corpus.image_id,
        unnested.class
    from unnested
    inner join corpus using (caption_id)
    semi join images on corpus.image_id = images.image_id
),

-- one row per caption and class that is shown or named
met as (
    select
        coalesce(shown.class, named.class) as class,
        coalesce(shown.image_id, named.image_id) as image_id,
        shown.class is not null as is_shown,
        named.class is not null as is_named
    from shown
    full join named using (caption_id, class)
)

select
    classes.class,
    count(*) filter (is_shown) as captions_shown,
    count(*) filter (is_named) as captions_named,
    count(*) filter (is_shown and is_named) as captions_right,
    count(distinct image_id) filter (is_shown) as images_shown,
    count(distinct image_id) filter (is_named) as images_named,
    count(distinct image_id) filter (is_shown and is_named) as images_right
from classes
left join met using (class)
group by classes.class, classes.class_index
order by classes.class_index
