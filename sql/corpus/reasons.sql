-- reasons: one row per reason, with how many records were rejected for it.
select
    reason,
    count(*) as records
from rejects
group by reason
order by records desc, reason
