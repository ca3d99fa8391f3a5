"""Inflections of English words: suffixes propose forms, NLTK's Snowball stemmer disposes.

The stemmer is code and needs no data. A verb's form stays if it has the verb's stem (`skiing`, not
`skies`; `batting`, not `bating`), and a noun that loses its `s` to the stemmer is a plural already
(`scissors`, unlike `bus`). A short table holds what no suffix can reach.
"""

import functools
import re
from collections.abc import Callable
from typing import Final

IRREGULAR_PLURALS: Final = {
    "aircraft": ("aircraft",),
    "bison": ("bison",),
    "bus": ("buses", "busses"),
    "calf": ("calves",),
    "child": ("children",),
    "deer": ("deer",),
    "fish": ("fish", "fishes"),
    "foot": ("feet",),
    "gas": ("gases",),
    "goose": ("geese",),
    "knife": ("knives",),
    "leaf": ("leaves",),
    "lens": ("lenses",),
    "loaf": ("loaves",),
    "moose": ("moose",),
    "mouse": ("mice", "mouses"),
    "ox": ("oxen",),
    "passerby": ("passersby",),
    "person": ("people", "persons"),
    "scarf": ("scarves", "scarfs"),
    "sheep": ("sheep",),
    "shelf": ("shelves",),
    "thief": ("thieves",),
    "tooth": ("teeth",),
    "wife": ("wives",),
    "wolf": ("wolves",),
}
# Words in -man whose plural is regular; the others go as man, woman, fireman.
REGULAR_MAN: Final = frozenset({"caiman", "german", "human", "ottoman", "roman", "talisman"})
PLURAL_ENDINGS: Final = ("children", "men", "people")
IRREGULAR_PASTS: Final = {
    "catch": ("caught",),
    "drive": ("drove", "driven"),
    "eat": ("ate", "eaten"),
    "fight": ("fought",),
    "fly": ("flew", "flown"),
    "hit": ("hit",),
    "ride": ("rode", "ridden"),
    "run": ("ran",),
    "sing": ("sang", "sung"),
    "sleep": ("slept",),
    "swim": ("swam", "swum"),
    "swing": ("swung",),
    "throw": ("threw", "thrown"),
    "wed": ("wed", "wedded"),
}


def stem(word: str) -> str:
    """Snowball's stem of a lower-case word."""
    return _stemmer()(word)


@functools.cache
def _stemmer() -> Callable[[str], str]:
    # NLTK imports all that it has, which takes seconds: a vocabulary is inflected once
    from nltk.stem.snowball import EnglishStemmer

    stemmed: Callable[[str], str] = EnglishStemmer().stem
    return stemmed


def plurals(noun: str) -> tuple[str, ...]:
    """Plural forms of an English noun; none where it is a plural already."""
    if noun in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[noun]
    if noun.endswith("man") and noun not in REGULAR_MAN:
        return (noun[:-3] + "men",)
    if noun.endswith(PLURAL_ENDINGS) or (noun.endswith("s") and stem(noun) != noun):
        return ()
    if re.search(r"(s|x|z|ch|sh)$", noun):
        return (noun + "es",)
    if re.search(r"[^aeiou]y$", noun):
        return (noun[:-1] + "ies",)
    if re.search(r"[^aeiou]o$", noun):
        return (noun + "s", noun + "es")
    return (noun + "s",)


def verb_forms(verb: str) -> tuple[str, ...]:
    """Forms of an English verb given by its infinitive (without *to*), itself first."""
    bases = [verb[:-1]] if verb.endswith("e") else [verb]
    if re.search(r"[aeiou][bdgmnprt]$", verb):
        bases.append(verb + verb[-1])
    ends_in_sibilant = re.search(r"(s|x|z|ch|sh)$", verb) is not None
    proposed = [verb + "es" if ends_in_sibilant else verb + "s", verb[:-1] + "ies", verb + "ing"]
    proposed += [base + "ing" for base in bases]
    if verb not in IRREGULAR_PASTS:
        proposed += [base + "ed" for base in bases] + [verb[:-1] + "ied"]
    regular = [form for form in proposed if stem(form) == stem(verb)]
    return (verb, *dict.fromkeys([*regular, *IRREGULAR_PASTS.get(verb, ())]))
