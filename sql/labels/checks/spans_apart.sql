-- A row per caption two of whose spans share a letter: a token would be counted twice.
select caption_id
from labels
where list_bool_or(
    list_transform(
        spans,
        lambda span, i: i > 1 and span.start < spans[i - 1]."end"
    )
)
limit 1
