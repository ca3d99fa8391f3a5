-- judged: one row per record of a batch, with the reason why it is rejected (null: none by itself).
create or replace temp table judged as
with read as (
    select
        *,
        -- most texts are plain; only the others are gone through sign by sign
        case
            when is_plain or text is null then false
            else regexp_matches(text, '[\x00-\x1f\x7f-\x{9f}]')
        end as has_controls,
        is_plain and not (starts_with(text, ' ') or ends_with(text, ' ')) as is_trimmed
    from records
),

cleaned as (
    select
        position,
        native_id,
        image_id,
        problem,
        case
            when is_trimmed then text
            when has_controls then trim(regexp_replace(text, '[\t\r\n]+', ' ', 'g'))
            else trim(text)
        end as text,
        has_controls
    from read
)

select
    position,
    -- what has no id of its own is known by what it says
    $source || '/' || $split || '/' || case
        when native_id is not null then native_id
        else sha256(coalesce(image_id, '') || chr(31) || text)[: 16]
    end as caption_id,
    image_id,
    text,
    case
        when problem is not null then problem
        when text is null then 'no_text'
        when text = '' then 'empty_text'
        when length(text) > $longest then 'too_long'
        when has_controls and regexp_matches(text, '[\x00-\x1f\x7f-\x{9f}]')
            then 'control_characters'
    end as reason
from cleaned
