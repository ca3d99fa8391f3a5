-- classes_per_caption: one row per number of classes, with the captions that name as many.
with labelled as (
    select
        len(classes) as classes,
        count(*) as captions
    from labels
    group by len(classes)
),

without as (
    select
        0 as classes,
        (select count(*) from corpus) - (select coalesce(sum(captions), 0) from labelled) as captions
)

select * from without
union all
select * from labelled
order by classes
