-- captions: one row per caption to train on, in corpus order.
-- A caption_id, which says source and file, that is met twice counts once, the first time. Captions
-- per image of a source are chosen by the MD5 of seed and caption_id, before labels are looked at:
-- the same on every machine. Of the captions whose rarest class is the same, the first $per_class
-- are kept (TaI-DPT on OpenImages); the others are marked.
with read as (
    select
        corpus.caption_id,
        corpus.source,
        corpus.image_id,
        corpus.text,
        files.file_index,
        corpus.file_row_number as row_index
    from corpus
    inner join files using (filename)
),

distinct_captions as (
    select * from read
    qualify row_number() over (
        partition by caption_id order by file_index, row_index
    ) = 1
),

chosen as (
    select * from distinct_captions
    qualify
        $per_image is null
        or image_id is null
        or row_number() over (
            partition by source, image_id order by md5($seed || ':' || caption_id), caption_id
        ) <= $per_image
),

-- a duplicate's labels are the same text's labels only if it is the same text: take the same file's
labelled as (
    select
        chosen.*,
        labels.classes,
        labels.spans
    from chosen
    inner join label_files using (file_index)
    inner join labels
        on
            labels.filename = label_files.filename
            and labels.caption_id = chosen.caption_id
),

class_counts as (
    select
        class,
        count(*) as captions
    from (select unnest(classes) as class from labelled)
    group by class
),

-- a caption belongs to its rarest class; of two as rare, to the first in the vocabulary
rarest as (
    select
        named.caption_id,
        arg_min(named.class, (class_counts.captions, named.place)) as class
    from (
        select
            caption_id,
            unnest(classes) as class,
            unnest(range(len(classes))) as place
        from labelled
    ) as named
    inner join class_counts using (class)
    group by named.caption_id
)

select
    file_index,
    caption_id,
    text,
    classes,
    spans,
    $per_class is null
    or row_number() over (
        partition by rarest.class order by file_index, row_index
    ) <= $per_class as is_kept
from labelled
inner join rarest using (caption_id)
order by file_index, row_index
