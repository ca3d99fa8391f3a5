-- A row per caption that stands twice in the labels.
select row
from labels
group by row
having count(*) > 1
limit 1
