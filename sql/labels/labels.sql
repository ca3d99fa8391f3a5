-- labels: one row per caption with at least one class, in the corpus's order.
-- Spans are half-open, in code points of the caption's text.
create or replace temp table labels as
with named as (
    select
        kept.row,
        kept.form,
        kept.first,
        kept.last,
        kept.first_word_length,
        forms.class_index
    from kept
    inner join forms using (form)
    where forms.class_index is not null
),

captioned as (
    select row, pieces(text) as pieces
    from captions
    semi join named using (row)
),

spans as (
    select
        row,
        class_index,
        form,
        length(array_to_string(pieces[: first], '')) - first_word_length as span_start,
        length(array_to_string(pieces[: last], '')) as span_end
    from captioned
    inner join named using (row)
),

-- numbers are cheaper to gather than names
gathered as (
    select
        row,
        list_sort(list(distinct class_index)) as class_indices,
        list_sort(list({'start': span_start, 'end': span_end, 'form': form})) as spans
    from spans
    group by row
),

names as (
    select
        (select list(class order by class_index) from classes) as of_class,
        (select list(class order by form) from forms left join classes using (class_index))
            as of_form,
        (select list(synonym order by form) from forms) as synonyms
)

select
    gathered.row,
    captions.caption_id,
    list_transform(gathered.class_indices, lambda i: names.of_class[i + 1]) as classes,
    list_transform(
        gathered.spans,
        lambda span: {
            'class': names.of_form[span.form + 1],
            'synonym': names.synonyms[span.form + 1],
            'start': span.start::integer,
            'end': span.end::integer
        }
    ) as spans
from gathered
inner join captions using (row)
cross join names
order by gathered.row;
