-- late: one row per record that was taken for a caption, of which the whole file tells that it is
-- none (with the reason), or that it needs another id.
create or replace temp table late as
with strangers as (
    select
        position,
        item
    from taken
    where not $takes_any_image and image_id not in (select image_id from images)
),

-- only captions compete for an id
repeats as (
    select
        position,
        item,
        caption_id,
        row_number() over (partition by caption_id order by position, item) as occurrence
    from taken
    where
        hash(caption_id) in (select id_hash from repeated)
        and (position, item) not in (select (position, item) from strangers)
),

numbered as (
    select
        position,
        item,
        caption_id || '_' || occurrence as caption_id
    from repeats
    where occurrence > 1
),

in_use as (
    select caption_id
    from taken
    semi join numbered using (caption_id)
),

-- an annotator may narrate an image twice; other ids must be unique
judged_again as (
    select
        position,
        item,
        caption_id,
        if(
            $numbers_repeats and caption_id not in (select caption_id from in_use),
            null,
            'duplicate_id'
        ) as reason
    from numbered
    union all
    select
        position,
        item,
        null as caption_id,
        'unknown_image' as reason
    from strangers
)

select *
from judged_again
order by position, item
