-- A row per span that does not lie inside its caption's text, or takes nothing.
select labels.caption_id
from labels
inner join captions using (row)
where list_bool_or(
    list_transform(
        labels.spans,
        lambda span: span.start < 0 or span."end" <= span.start or span."end" > length(captions.text)
    )
)
limit 1
