-- A row if a record that was read is neither kept nor rejected, or is both.
select counts.*
from (
    select
        (select count(*) from records) as read,
        (select count(*) from classified) as classified
) as counts
where counts.read != counts.classified
