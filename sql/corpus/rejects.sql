-- rejects: one row per record that is no caption, in file order, with the reason and how it began.
select
    $source as source,
    $split as split,
    $file as file,
    classified.position,
    classified.reason,
    raw.raw
from classified
left join raw using (position)
where classified.reason is not null
order by classified.position
