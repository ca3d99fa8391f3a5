-- matches: one row per place in a caption where all words of a form stand, overlaps included.
-- `first` and `last` are the 1-based tokens that it takes.
create or replace temp table matches as
with anchored as (
    select
        tokens.row,
        tokens.words,
        forms.*,
        tokens.position - forms.anchor_at as before
    from tokens
    inner join forms on tokens.word = forms.anchor
)

select
    row,
    form,
    length,
    (before + 1)::integer as first,
    (before + length)::integer as last,
    length(words[before + 1])::integer as first_word_length
from anchored
where
    before >= 0
    and before + length <= len(words)
    and words[before + 1] = word_1
    and (length < 2 or words[before + 2] = word_2)
    and (length < 3 or words[before + 3] = word_3)
    and (length < 4 or words[before + 4] = word_4)
    and (length < 5 or words[before + 5] = word_5)
