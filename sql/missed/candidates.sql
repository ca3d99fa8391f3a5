-- candidates: one row per stem of a run of words that several captions have and no class took, as
-- it is written, the most frequent first; `silent` of those captions name no class. A run goes where a longer one
-- is nearly all of it (`chopping`, of `chopping board`) or a shorter one is far more (`red skillet`).
create or replace temp table candidates as
with spelt as (
    select
        stem,
        gram,
        count(distinct caption) as captions
    from grams
    group by stem, gram
),

spellings as (
    select
        stem,
        list(gram order by captions desc, gram) as spellings
    from spelt
    group by stem
),

counted as (
    select
        stem,
        any_value(length) as length,
        count(distinct caption) as captions,
        count(distinct caption) filter (is_silent) as silent
    from grams
    group by stem
    having captions >= $least
),

parts as (
    select
        longer.stem as longer,
        shorter.stem as shorter,
        longer.captions / shorter.captions as share,
        ends_with(longer.stem, shorter.stem) as is_head
    from counted as longer
    inner join counted as shorter
        on
            longer.length > shorter.length
            and contains(' ' || longer.stem || ' ', ' ' || shorter.stem || ' ')
),

kept as (
    from counted
    anti join (
        from parts
        where share >= 0.8
    ) as covered on counted.stem = covered.shorter
    anti join (
        from parts
        where is_head and share < 0.5
    ) as loose on counted.stem = loose.longer
)

select
    row_number() over (order by kept.captions desc, kept.stem)::integer as candidate,
    kept.stem,
    spellings.spellings,
    kept.captions,
    kept.silent
from kept
inner join spellings using (stem)
order by kept.captions desc, kept.stem
limit $most
