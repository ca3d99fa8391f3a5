-- labels: one row per class that words of a caption name, by caption and place.
-- Spans are half-open, in code points of the caption's text.
create or replace temp table labels as
with placed as (
    select
        named.*,
        text_length,
        list_sum(lengths[: last]) - 1 as span_end,
        if(first = last, span_end, list_sum(lengths[: first]) - 1) - length(words[first])
            as span_start
    from tokenised
    inner join named using (row)
)

select
    row,
    unnest(class_indices) as class_index,
    form,
    span_start::integer as span_start,
    span_end::integer as span_end,
    text_length
from placed
order by row, span_start, class_index
