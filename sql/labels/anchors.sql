-- anchors: one row per rarest word of a form and `gap`, how many tokens further its second word is.
create or replace temp table anchors as
select distinct
    anchor,
    pair,
    second_at - anchor_at as gap
from forms
