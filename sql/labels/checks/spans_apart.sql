-- A row per label whose span shares a letter with the next one's: a token would be counted twice. The
-- two classes of one synonym have the same span.
with followed as (
    select
        *,
        lead({'row': row, 'form': form, 'start': span_start, 'class': class_index})
            over (order by row, span_start, class_index) as next
    from labels
)

select
    captions.caption_id,
    captions.text,
    followed.span_start,
    followed.span_end,
    followed.next.start as next_start
from captions
inner join followed using (row)
where
    row = next.row
    and span_end > next.start
    and not (form = next.form and span_start = next.start and class_index < next.class)
