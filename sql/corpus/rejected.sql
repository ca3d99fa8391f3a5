-- rejected: one row per record that is no caption: where it stands in the file.
select position
from classified
where reason is not null
order by position
