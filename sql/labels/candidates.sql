-- candidates: one row per place in a caption where the rarest word of a form stands, and another one
-- of its words where it must be. `before` tokens of the caption stand before the form. Of a settled
-- form there are no more words to look for; few rows are of others.
create or replace temp table candidates as
select
    tokens.row,
    forms.form,
    forms.is_settled,
    (tokens.position - forms.anchor_at)::integer as before
from tokens
inner join forms on tokens.word = forms.anchor
where tokens.words[tokens.position - forms.anchor_at + forms.second_at] = forms.second
