-- A row per caption that stands more than once in the labels.
select any_value(caption_id) as caption_id
from labels
group by row
having count(*) > 1
