-- A row per label that does not come after the one before it: they are out of order, or their spans
-- share a letter, so that a token is counted twice. Two classes of one synonym have the same span.
with followed as (
    select
        *,
        lag(row) over () as last_row,
        lag(form) over () as last_form,
        lag(class_index) over () as last_class,
        lag(span_start) over () as last_start,
        lag(span_end) over () as last_end
    from labels
),

-- none, as a rule: captions are looked at for faults alone
faults as materialized (
    select * from followed
    where
        row < last_row
        or (
            row = last_row
            and span_start < last_end
            and not (form = last_form and span_start = last_start and class_index > last_class)
        )
)

select
    captions.caption_id,
    captions.text,
    faults.last_start,
    faults.last_end,
    faults.span_start,
    faults.span_end
from captions
inner join faults using (row)
