-- tokenised: one row per caption, with its tokens, how many code points each adds to the text, and
-- how many the text has.
create or replace temp table tokenised as
with judged as (
    select
        row,
        text,
        is_plain(text) as plain
    from captions
)

select
    row,
    words(text, plain) as words,
    lengths(text, plain, words) as lengths,
    length(text) as text_length
from judged
