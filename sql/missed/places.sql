-- places: one row per candidate, with how much more its places look like those of class mentions than
-- like those of any word: mean log ratio over what stands before and behind.
with mentions as (
    select
        caption,
        position,
        is_free,
        lag(is_free, 1, true) over following as free_before,
        lead(is_free, 1, true) over following as free_behind,
        lag(if(is_content or not is_free, '_', word), 1, '.') over following as before,
        lead(if(is_content or not is_free, '_', word), 1, '.') over following as behind
    from tokens
    window following as (partition by caption order by position)
),

of_classes as (
    select 'before' as side, before as kind from mentions where not is_free and free_before
    union all
    select 'behind' as side, behind as kind from mentions where not is_free and free_behind
),

of_all as (
    select 'before' as side, before as kind from grams where length = 1
    union all
    select 'behind' as side, behind as kind from grams where length = 1
),

odds as (
    select
        side,
        kind,
        ln(
            (count(*) filter (is_class) + 1) / (sum(count(*) filter (is_class)) over sides + 20)
            / (count(*) filter (not is_class) + 1)
            * (sum(count(*) filter (not is_class)) over sides + 20)
        ) as ratio
    from (
        select *, true as is_class from of_classes
        union all
        select *, false as is_class from of_all
    )
    group by side, kind
    window sides as (partition by side)
),

of_candidates as (
    select candidate, 'before' as side, before as kind from candidates inner join grams using (stem)
    union all
    select candidate, 'behind' as side, behind as kind from candidates inner join grams using (stem)
)

select
    candidate,
    2 * avg(ratio) as ratio
from of_candidates
inner join odds using (side, kind)
group by candidate
order by candidate
