-- rejected_late: one row per record that the whole file tells is no caption, with the reason.
select
    position,
    item,
    reason
from late
where reason is not null
order by position, item
