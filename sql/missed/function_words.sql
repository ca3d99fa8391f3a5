-- function_words: one row per word that names no thing: articles, prepositions, pronouns, auxiliaries,
-- numbers, what is left of contractions, and words of place and amount.
create or replace temp table function_words as
select
    unnest(
        string_split_regex(
            trim('
a an the this that these those some any each every no all both several many few much more most other
another such own same one two three four five six seven eight nine ten dozen
and or but nor so yet if while as than because when where who whom whose which what how why though
although
of in on at by for with from to into onto over under above below beneath beside besides between
behind near next inside outside through across along around against toward towards up down off out
about after before during without within upon among amid underneath alongside atop past
is are was were be been being am has have had having do does did doing can could will would shall
should may might must get gets got getting
i you he she it we they me him her us them my your his its our their mine yours hers theirs himself
herself itself themselves
not very too also just only then there here now again still already ever never always often
s t d ll re ve m don
front back side top bottom left right middle center centre end edge part piece pieces pair set group
bunch row kind type lot lots couple variety
            '),
            '\s+'
        )
    ) as word
