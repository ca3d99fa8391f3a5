-- counts: one row that says where every caption of the corpus went before training.
with read as (
    select
        caption_id,
        source,
        image_id
    from corpus
),

distinct_captions as (
    select
        caption_id,
        any_value(source) as source,
        any_value(image_id) as image_id
    from read
    group by caption_id
),

per_image as (
    select
        source,
        image_id,
        count(*) as captions
    from distinct_captions
    where image_id is not null
    group by source, image_id
)

select
    (select count(*) from read) as captions_read,
    (select count(*) from read) - (select count(*) from distinct_captions) as captions_duplicate,
    if(
        $per_image is null,
        0,
        coalesce((select sum(greatest(captions - $per_image, 0)) from per_image), 0)
    )::bigint as captions_not_chosen
