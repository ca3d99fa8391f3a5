-- lengths: one row per number of words, with the captions that have as many (50: or more).
select
    least(len(string_split(text, ' ')), 50) as words,
    count(*) as captions
from corpus
group by words
order by words
