-- A row if the records that were read are not exactly those that were kept or rejected.
select
    (select count(*) from records) as read,
    (select count(*) from classified) as classified
where read != classified
