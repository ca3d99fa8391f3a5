-- A row per caption two of whose spans share a letter: a token would be counted twice. The two
-- classes of one synonym have the same span.
select
    caption_id,
    spans
from labels
where list_bool_or(
    list_transform(
        spans,
        lambda span, i: i > 1
        and span.start < spans[i - 1]."end"
        and (span.start, span."end") != (spans[i - 1].start, spans[i - 1]."end")
    )
)
