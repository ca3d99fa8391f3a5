-- A row if the records that were read are not exactly those that were kept or rejected, or the lines
-- of a text file not exactly those of its header, of its records, and blank ones.
with counted as (
    select
        (select sum(records) from read) as records,
        (select sum(lines) from read) as lines,
        (select sum(header + blank + of_records) from read) as lines_accounted,
        (select count(*) from corpus) as kept,
        (select count(*) from rejects) as rejected
)

select *
from counted
where records != kept + rejected or lines != lines_accounted
