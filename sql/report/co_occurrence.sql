-- co_occurrence: one row per pair of classes that some captions name both (or one class with itself).
with named as (
    select unnest(classes) as class, classes
    from labels
),

pairs as (
    select
        class,
        unnest(classes) as other
    from named
)

select
    class,
    other,
    count(*) as captions
from pairs
group by class, other
order by class, other
