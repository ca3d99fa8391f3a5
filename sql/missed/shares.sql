-- shares: one row: captions looked at, and those of them that name no class.
select
    count(distinct caption) as looked_at,
    count(distinct caption) filter (is_silent) as silent
from tokens
