-- kept: one row per match that stays: the longest first, then the leftmost, and no token twice.
-- Few captions have overlapping matches; only theirs are gone through one by one.
create or replace temp view kept as
with neighbours as (
    select
        row,
        first <= lag(last) over (partition by row order by first) as clashes
    from matches
),

contested as (
    select distinct row from neighbours
    where clashes
),

ranked as (
    select
        row,
        list_sort(
            list({
                'rank': -length,
                'first': first,
                'form': form,
                'last': last,
                'first_word_length': first_word_length
            })
        ) as candidates
    from matches
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

select row, form, first, last, first_word_length
from matches
anti join contested using (row)
union all
select row, match.form, match.first, match.last, match.first_word_length
from chosen;
