-- tokens: one row per token of the captions looked at. A token is free if no mention of a class took
-- it, and content if it is a word that could name a thing: no function word, no number, no break.
create or replace temp table tokens as
with looked_at as (
    select
        row_number() over (order by corpus.caption_id) as caption,
        corpus.text,
        is_plain(corpus.text) as plain,
        labels.caption_id is null as is_silent,
        coalesce(labels.spans, []) as spans
    from corpus
    left join labels using (caption_id)
    where md5_number_lower(corpus.caption_id) % $every = 0
),

split as (
    select
        *,
        words(text, plain) as words,
        lengths(text, plain, words) as lengths
    from looked_at
),

placed as (
    select
        caption,
        is_silent,
        spans,
        lengths,
        unnest(words) as word,
        generate_subscripts(words, 1) as position
    from split
),

judged as (
    select
        *,
        list_sum(lengths[: position]) - 1 as finish,
        list_bool_or(
            list_transform(
                spans, lambda span: span.start < finish and finish <= span."end" and word != '.'
            )
        ) as is_taken
    from placed
)

select
    caption,
    position,
    word,
    is_silent,
    not coalesce(is_taken, false) as is_free,
    length(word) > 1
    and not regexp_matches(word, '\pN')
    and word not in (select word from function_words) as is_content
from judged
