-- frequency: one row per word of the captions, with how often it stands there.
select
    word,
    count(*) as times
from tokens
group by word
