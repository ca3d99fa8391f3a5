-- first_reject: the first record that is no caption: where it stands, why, and how it begins.
select
    position,
    reason,
    raw
from rejects
order by position, item
limit 1
