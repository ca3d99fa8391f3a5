-- judged: one row per record of a batch, with the reason why it is rejected (null: none by itself).
-- Texts are cleaned already (tasks/corpus/cleaning.py).
create or replace temp table judged as
select
    position,
    item,
    -- what has no id of its own is known by what it says
    $source || '/' || $file || '/' || case
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
        when not is_plain and regexp_matches(text, '[\x00-\x1f\x7f-\x{9f}]')
            then 'control_characters'
    end as reason
from records
