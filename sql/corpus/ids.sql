-- ids: one row per record that was taken for a caption: its id in 8 bytes.
select hash(caption_id) as id_hash
from judged
where reason is null
