-- classified: one row per record read, in file order, with the reason why it is rejected (null: kept).
create or replace temp table classified as
with read as (
    select
        *,
        coalesce(regexp_matches(text, '[\x00-\x1f\x7f-\x{9f}]'), false) as has_controls
    from records
),

-- few texts have a line break or another such sign; only they are gone through for it
cleaned as (
    select
        position,
        native_id,
        image_id,
        problem,
        trim(if(has_controls, regexp_replace(text, '[\t\r\n]+', ' ', 'g'), text)) as text,
        has_controls
    from read
),

judged as (
    select
        * exclude (has_controls),
        case
            when problem is not null then problem
            when text is null then 'no_text'
            when text = '' then 'empty_text'
            when length(text) > $longest then 'too_long'
            when has_controls and regexp_matches(text, '[\x00-\x1f\x7f-\x{9f}]')
                then 'control_characters'
            when not $takes_any_image and image_id not in (select image_id from images)
                then 'unknown_image'
        end as reason
    from cleaned
),

identified as (
    select
        *,
        case
            when native_id is not null then native_id
            else sha256(coalesce(image_id, '') || chr(31) || text)[: 16]
        end as own_id
    from judged
),

-- only rows that would be kept compete for an id
numbered as (
    select
        *,
        row_number() over (
            partition by own_id, reason is null order by position
        ) as occurrence
    from identified
)

select
    position,
    image_id,
    text,
    -- an annotator may narrate an image twice; other ids must be unique
    $source || '/' || $split || '/' || own_id
    || if($numbers_repeats and occurrence > 1, '_' || occurrence, '') as caption_id,
    case
        when reason is null and occurrence > 1 and not $numbers_repeats then 'duplicate_id'
        else reason
    end as reason
from numbered
