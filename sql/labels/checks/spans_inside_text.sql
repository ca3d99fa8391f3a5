-- A row per label with a span that does not lie inside the caption's text, or takes nothing.
select
    captions.caption_id,
    captions.text,
    labels.span_start,
    labels.span_end
from captions
inner join labels using (row)
where
    labels.span_start < 0
    or labels.span_end <= labels.span_start
    or labels.span_end > length(captions.text)
