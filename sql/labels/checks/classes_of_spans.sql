-- A row per caption whose classes are not exactly those of its spans.
select caption_id
from labels
where
    len(classes) = 0
    or list_sort(classes) != list_sort(list_distinct(list_transform(spans, lambda s: s.class)))
limit 1
