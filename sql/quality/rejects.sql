-- rejects: one row per reason for which records are no captions, with an example.
select
    reason,
    count(*) as records,
    arg_min(file || ', ' || position || ': ' || raw, (file, position)) as example
from rejects
group by reason
order by records desc, reason
