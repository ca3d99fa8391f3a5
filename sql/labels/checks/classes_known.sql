-- A row per label whose class is not in the vocabulary.
select
    captions.caption_id,
    labels.class_index
from captions
inner join labels using (row)
anti join classes using (class_index)
