-- tokens: one row per token of a caption, with all the caption's tokens beside it.
create or replace temp view tokens as
with judged as (
    select
        row,
        text,
        is_plain(text) as plain
    from captions
),

tokenised as (
    select
        *,
        words(text, plain) as words
    from judged
)

select
    *,
    unnest(words) as word,
    generate_subscripts(words, 1) as position
from tokenised;
