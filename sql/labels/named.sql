-- named: one row per match and class that it names.
-- A match names nothing beside words such as `toy` or `shaped`, and a form that yields nothing
-- right beside a match with a class.
create or replace temp view named as
with standing as (
    select
        kept.*,
        forms.class_indices,
        forms.yields_to_next,
        forms.yields_to_previous
    from kept
    inner join forms using (form)
    where
        len(forms.class_indices) > 0
        and (row, first) not in (select (row, first) from matches where kind = 'before')
        and (row, last) not in (select (row, last) from matches where kind = 'behind')
),

yielding as (
    select
        one.row,
        one.first
    from standing as one
    inner join standing as other using (row)
    where
        (one.yields_to_next and other.first = one.last + 1)
        or (one.yields_to_previous and other.last = one.first - 1)
)

select
    row,
    form,
    first,
    last,
    span_start,
    span_end,
    unnest(class_indices) as class_index
from standing
anti join yielding using (row, first)
