-- matches: one row per place in a caption where all words of a form stand, overlaps included.
-- `first` and `last` are the 1-based tokens that it takes. A form that is all context takes none:
-- there, both are the token that it says something about. Of two matches of a caption the one with
-- the lower `place` goes first: the longer, then the leftmost.
create or replace temp table matches as
with standing as (
    select row, form, before
    from candidates
    where is_settled
    union all
    select row, form, before
    from tokenised
    inner join (
        from candidates
        where not is_settled
    ) as asked using (row)
    inner join forms using (form)
    where
        before >= 0
        and before + length <= len(tokenised.words) + ends_in_break::integer
        and stands(tokenised.words[before + 1], word_1)
        and stands(tokenised.words[before + 2], word_2)
        and (length < 3 or stands(tokenised.words[before + 3], word_3))
        and (length < 4 or stands(tokenised.words[before + 4], word_4))
        and (length < 5 or stands(tokenised.words[before + 5], word_5))
)

select
    row,
    form,
    kind,
    length > 1 as has_several,
    before + taken_from as first,
    before + taken_to as last,
    ((64 - rank)::bigint << 48) + (first::bigint << 24) + form as place
from standing
inner join forms using (form)
