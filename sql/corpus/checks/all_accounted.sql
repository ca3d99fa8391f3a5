-- A row if the records that were read are not exactly those that were kept or rejected.
with counted as (
    select
        (select sum(records) from read) as records,
        (select count(*) from corpus) as kept,
        (select count(*) from rejects) as rejected
)

select *
from counted
where records != kept + rejected
