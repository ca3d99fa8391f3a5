-- grams: one row per run of one to three free tokens that begins and ends in a content word, with
-- its stem and what stands before and behind it: a function word, `.` (a break, or the end), or `_`.
create or replace temp table grams as
with beside as (
    select
        *,
        case when word = '.' or not is_content then word else '_' end as kind
    from tokens
),

stemmed as (
    select
        beside.*,
        stems.stem,
        lead(word, 1) over following as second,
        lead(word, 2) over following as third,
        lead(is_free, 1, false) over following as second_is_free,
        lead(is_free, 2, false) over following as third_is_free,
        lag(kind, 1, '.') over following as before,
        lead(kind, 1, '.') over following as behind_one,
        lead(kind, 2, '.') over following as behind_two,
        lead(kind, 3, '.') over following as behind_three
    from beside
    left join stems using (word)
    window following as (partition by caption order by position)
),

one as (
    select
        caption,
        position,
        1 as length,
        word as gram,
        stem,
        before,
        behind_one as behind,
        is_silent
    from stemmed
    where is_free and stem is not null
),

two as (
    select
        caption,
        position,
        2 as length,
        stemmed.word || ' ' || second as gram,
        stemmed.stem || ' ' || stems.stem as stem,
        before,
        behind_two as behind,
        is_silent
    from stemmed
    inner join stems on second = stems.word
    where is_free and second_is_free and stemmed.stem is not null
),

three as (
    select
        caption,
        position,
        3 as length,
        stemmed.word || ' ' || second || ' ' || third as gram,
        stemmed.stem || ' ' || second || ' ' || stems.stem as stem,
        before,
        behind_three as behind,
        is_silent
    from stemmed
    inner join stems on third = stems.word
    where
        is_free
        and second_is_free
        and third_is_free
        and second != '.'
        and stemmed.stem is not null
)

from one
union all
from two
union all
from three
