-- refused: one row per record that is no caption by itself, in file order (kept by DuckDB), with
-- the reason.
select
    position,
    item,
    reason
from judged
where reason is not null
