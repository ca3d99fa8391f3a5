-- kept: one row per match that stays: the longest first, then the leftmost, and no token twice.
-- A match without a better one stays, and those that clash with it go. Where that leaves one open,
-- as all its betters go, the caption's matches are gone through one by one; few captions have any.
create or replace temp table kept as
with taking as (
    select * from matches
    where kind = 'takes'
),

lesser as (
    select distinct
        row,
        lesser as place
    from clashes
),

going as (
    select
        clashes.row,
        clashes.lesser as place
    from clashes
    anti join lesser on clashes.row = lesser.row and clashes.better = lesser.place
),

open as (
    select distinct row
    from lesser
    anti join going using (row, place)
),

ranked as (
    select
        row,
        list_sort(
            list({'place': place, 'form': form, 'first': first, 'last': last})
        ) as candidates
    from taking
    semi join open using (row)
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

select row, form, first, last
from taking
anti join lesser using (row, place)
anti join open using (row)
union all
select row, match.form, match.first, match.last
from chosen
