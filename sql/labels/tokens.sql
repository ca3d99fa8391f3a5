-- tokens: one row per token of a caption, with all the caption's tokens beside it.
create or replace temp view tokens as
select
    row,
    words,
    unnest(words) as word,
    generate_subscripts(words, 1) as position
from tokenised
