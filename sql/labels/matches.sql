-- matches: one row per place in a caption where all words of a form stand, overlaps included.
-- `first` and `last` are the 1-based tokens that it takes, the span where they stand in the text.
-- A form that is all context takes none: there, both are the token that it says something about.
create or replace temp table matches as
with anchored as (
    select
        tokens.* exclude (word, position),
        forms.* exclude (words),
        tokens.position - forms.anchor_at as before
    from tokens
    inner join forms on tokens.word = forms.anchor
),

standing as (
    select
        *,
        (before + taken_from)::integer as first,
        (before + taken_to)::integer as last
    from anchored
    where
        -- of most forms the second word is not there, so the others are not looked at
        words[before + second_at] = second
        and (
            length = 1
            or (
                before >= 0
                and before + length <= len(words) + ends_in_break::integer
                and stands(words[before + 1], word_1)
                and stands(words[before + 2], word_2)
                and (length < 3 or stands(words[before + 3], word_3))
                and (length < 4 or stands(words[before + 4], word_4))
                and (length < 5 or stands(words[before + 5], word_5))
            )
        )
),

ended as (
    select
        *,
        length_up_to(text, plain, words, last) as span_end
    from standing
)

select
    row,
    form,
    rank,
    kind,
    first,
    last,
    if(first = last, span_end, length_up_to(text, plain, words, first))
    - length(words[first]) as span_start,
    span_end
from ended
