-- captions: one row per caption to train on, in corpus order.
-- A caption_id, which says source and file, that is met twice counts once, the first time. Captions
-- per image of a source are chosen by the MD5 of seed and caption_id, before labels are looked at:
-- the same on every machine.
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
        labels.caption_id,
        labels.classes,
        labels.spans,
        label_files.file_index
    from labels
    inner join label_files using (filename)
)

select
    chosen.file_index,
    chosen.caption_id,
    chosen.text,
    labelled.classes,
    labelled.spans
from chosen
inner join labelled using (caption_id, file_index)
order by chosen.file_index, chosen.row_index
