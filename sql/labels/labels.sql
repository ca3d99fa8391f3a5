-- labels: one row per caption with at least one class.
-- Spans are half-open, in code points of the caption's text. Numbers are gathered, then named.
create or replace temp table labels as
with gathered as (
    select
        row,
        list_sort(list(distinct class_index)) as class_indices,
        list_sort(
            list({'start': span_start, 'end': span_end, 'class_index': class_index, 'form': form})
        ) as spans
    from named
    group by row
),

names as (
    select
        (select list(class order by class_index) from classes) as of_class,
        (select list(synonym order by form) from forms) as synonyms
)

select
    gathered.row,
    captions.caption_id,
    list_transform(gathered.class_indices, lambda i: names.of_class[i + 1]) as classes,
    list_transform(
        gathered.spans,
        lambda span: {
            'class': names.of_class[span.class_index + 1],
            'synonym': names.synonyms[span.form + 1],
            'start': span.start::integer,
            'end': span.end::integer
        }
    ) as spans
from gathered
inner join captions using (row)
cross join names;
