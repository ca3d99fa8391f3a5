-- A row per caption with a span that does not lie inside its text, or takes nothing.
select
    labels.caption_id,
    captions.text,
    labels.spans
from labels
inner join captions using (row)
where list_bool_or(
    list_transform(
        labels.spans,
        lambda span: span.start < 0 or span."end" <= span.start or span."end" > length(captions.text)
    )
)
