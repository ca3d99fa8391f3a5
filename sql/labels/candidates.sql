-- candidates: one row per place in a caption where the rarest word of a form stands, and another one
-- of its words where it must be. `before` tokens of the caption stand before the form. Of a settled
-- form there are no more words to look for; few rows are of others.
-- Many forms differ in one word only: the place of that is looked up once for all of them.
create or replace temp table candidates as
with pairs as (
    select
        tokens.row,
        tokens.position,
        anchors.pair,
        tokens.words[tokens.position + anchors.gap] as second
    from tokens
    inner join anchors on tokens.word = anchors.anchor
)

select
    pairs.row,
    forms.form,
    forms.is_settled,
    (pairs.position - forms.anchor_at)::integer as before
from pairs
inner join forms using (pair, second)
