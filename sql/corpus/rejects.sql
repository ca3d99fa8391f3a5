-- rejects: one row per record that is no caption, in file order, with the reason and how it began.
select
    $source as source,
    $split as split,
    $file as file,
    position,
    item,
    reason,
    raw
from refused
order by position, item
