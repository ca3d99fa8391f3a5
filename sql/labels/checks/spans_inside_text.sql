-- A row per label with a span that does not lie inside the caption's text, or takes nothing.
with faults as materialized (
    select * from labels
    where
        span_start < 0
        or span_end <= span_start
        or span_end > text_length
)

select
    captions.caption_id,
    captions.text,
    faults.span_start,
    faults.span_end
from captions
inner join faults using (row)
