-- kept: one row per match that stays: the longest first, then the leftmost, and no token twice.
-- Few captions have overlapping matches; only theirs are gone through one by one.
create or replace temp table kept as
with taking as (
    select * from matches
    where kind = 'takes'
),

-- each token is a bit: as many bits as tokens taken, unless two matches take the same token
-- (or, in captions of more than 57 tokens, perhaps not: that only costs time)
contested as (
    select row
    from taking
    group by row
    having
        sum(last - first + 1)
        > bit_count(bit_or(((1::bigint << (last - first + 1)) - 1) << (first % 57)))
),

ranked as (
    select
        row,
        list_sort(
            list({
                'rank': -rank,
                'first': first,
                'form': form,
                'last': last,
                'span_start': span_start,
                'span_end': span_end
            })
        ) as candidates
    from taking
    semi join contested using (row)
    group by row
),

chosen as (
    select
        row,
        unnest(
            list_reduce(
                list_transform(candidates, lambda candidate: [candidate]),
                lambda taken, next: if(
                    list_bool_or(
                        list_transform(
                            taken,
                            lambda one: one.first <= next[1].last and next[1].first <= one.last
                        )
                    ),
                    taken,
                    taken || next
                )
            )
        ) as match
    from ranked
)

select row, form, first, last, span_start, span_end
from taking
anti join contested using (row)
union all
select row, match.form, match.first, match.last, match.span_start, match.span_end
from chosen;
