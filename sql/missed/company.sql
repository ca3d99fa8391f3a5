-- company: one row per candidate and class, with the cosine of the words that stand around both.
-- A word counts by how much more often it is there than elsewhere (positive pointwise mutual
-- information), less where that was seen once or twice.
with words as (
    select distinct
        tokens.caption,
        stems.stem as word
    from tokens
    inner join stems using (word)
    where is_free and is_content
),

everywhere as (
    select
        word,
        count(*) as captions
    from words
    group by word
    having captions >= 3
),

members as (
    select distinct
        'candidate' as kind,
        candidate as member,
        grams.caption,
        candidates.stem as own
    from candidates
    inner join grams using (stem)
    union all
    select distinct
        'class' as kind,
        class_index as member,
        caption,
        '' as own
    from named
),

met as (
    select
        kind,
        member,
        word,
        count(*) as times
    from members
    inner join words using (caption)
    where not contains(' ' || own || ' ', ' ' || word || ' ')
    group by kind, member, word
),

sizes as (
    select
        kind,
        member,
        count(*) as captions
    from members
    group by kind, member
),

total as (select count(distinct caption) as captions from tokens),

weighed as (
    select
        met.kind,
        met.member,
        met.word,
        greatest(
            0, ln(met.times / sizes.captions / everywhere.captions * (select captions from total))
        ) * met.times / (met.times + 2) as weight
    from met
    inner join sizes using (kind, member)
    inner join everywhere using (word)
),

norms as (
    select
        kind,
        member,
        sqrt(sum(weight * weight)) as norm
    from weighed
    group by kind, member
),

products as (
    select
        one.member as candidate,
        other.member as class_index,
        sum(one.weight * other.weight) as product,
        list(one.word order by one.weight * other.weight desc, one.word)[: 3] as shared
    from weighed as one
    inner join weighed as other using (word)
    where one.kind = 'candidate' and other.kind = 'class' and one.weight > 0 and other.weight > 0
    group by one.member, other.member
),

together as (
    select
        one.member as candidate,
        other.member as class_index,
        count(*) as captions
    from members as one
    inner join members as other using (caption)
    where one.kind = 'candidate' and other.kind = 'class'
    group by one.member, other.member
)

select
    products.candidate,
    products.class_index,
    product / one.norm / other.norm as cosine,
    shared,
    coalesce(together.captions, 0) * (select captions from total)
    / of_one.captions / of_other.captions as together
from products
left join together using (candidate, class_index)
inner join sizes as of_one on of_one.kind = 'candidate' and of_one.member = products.candidate
inner join sizes as of_other on of_other.kind = 'class' and of_other.member = products.class_index
inner join norms as one on one.kind = 'candidate' and one.member = products.candidate
inner join norms as other on other.kind = 'class' and other.member = products.class_index
order by products.candidate, products.class_index
