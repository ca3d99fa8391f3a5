-- clashes: one row per two matches that would take the same token, the better one and the other.
-- Two words alone are at two places, so one of two that clash is of a form with several words.
create or replace temp table clashes as
select
    row,
    least(one.place, other.place) as better,
    greatest(one.place, other.place) as lesser
from matches as other
inner join matches as one using (row)
where
    one.has_several
    and one.kind = 'takes'
    and other.kind = 'takes'
    and one.place != other.place
    and one.first <= other.last
    and other.first <= one.last
