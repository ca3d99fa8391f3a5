-- sizes: one row per number of classes, with the captions that name as many.
select
    len(classes) as classes,
    count(*) as captions
from labels
group by len(classes)
order by classes
