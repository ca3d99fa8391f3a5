-- A row per caption whose classes are not exactly those of its spans.
with compared as (
    select
        caption_id,
        classes,
        list_transform(spans, lambda span: span.class) as of_spans
    from labels
)

select *
from compared
where
    len(classes) = 0
    or not list_has_all(classes, of_spans)
    or not list_has_all(of_spans, classes)
