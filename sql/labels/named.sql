-- named: one row per match that names classes, with their indices.
-- A match names nothing beside words such as `toy` or `shaped`, and a form that yields nothing
-- right beside a match with a class.
create or replace temp table named as
with standing as (
    select
        kept.*,
        forms.class_indices,
        forms.yields_to_next,
        forms.yields_to_previous
    from kept
    inner join forms using (form)
    anti join (
        from matches
        where kind = 'before'
    ) as spoken_of using (row, first)
    anti join (
        from matches
        where kind = 'behind'
    ) as spoken_of using (row, last)
    where len(forms.class_indices) > 0
),

yielding as (
    select
        one.row,
        one.first
    from standing as other
    inner join standing as one on other.row = one.row and other.first = one.last + 1
    where one.yields_to_next
    union all
    select
        one.row,
        one.first
    from standing as other
    inner join standing as one on other.row = one.row and other.last = one.first - 1
    where one.yields_to_previous
)

select row, form, class_indices, first, last
from standing
anti join yielding using (row, first)
