-- duplicates: one row per text that several captions share, the most frequent first.
select
    text,
    count(*) as captions
from corpus
group by text
having count(*) > 1
order by captions desc, text
