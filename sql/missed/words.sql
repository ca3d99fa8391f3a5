-- words: one row per free content word that stands in several captions, the most frequent first.
select
    word,
    count(distinct caption) as captions
from tokens
where is_free and is_content
group by word
having captions >= 2
order by captions desc, word
