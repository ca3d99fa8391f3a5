"""Sentences that name given classes: by a small grammar, or by a real caption's own words.

The grammar says how many, of what kind and where. Whatever it says besides may itself be a word of
some vocabulary: who composes looks at the labels of what came out (tasks/labels/compose.py).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tasks.labels.inflections import plurals
from tasks.labels.vocabulary import Vocabulary

NAME_RATE: Final = 0.4
"""How often a class is called by its name and not by another synonym."""
MANY_RATE: Final = 0.2
KIND_RATE: Final = 0.35
PLACE_RATE: Final = 0.4
ONE: Final = ("a", "a", "a", "the", "one", "this", "another", "a single")
MANY: Final = ("two", "three", "some", "several", "many", "a few", "a couple of", "a pair of")
KINDS: Final = (
    "small", "large", "big", "little", "old", "new", "nice", "plain", "beautiful", "typical",
    "red", "blue", "green", "white", "black", "brown", "yellow", "gray", "dark", "bright",
)  # fmt: skip
FRAMES: Final = (
    "{}", "{}", "{}", "{}", "a photo of {}", "a picture of {}", "an image of {}", "a view of {}",
    "a close up of {}", "a shot of {}", "here we see {}", "we can see {}", "you can see {}",
    "this shows {}", "a scene with {}", "showing {}", "look at {}", "{} in view", "{} up close",
    "a detail of {}",
)  # fmt: skip
PAIRS: Final = (
    "{} and {}", "{} and {}", "{} with {}", "{} next to {}", "{} beside {}", "{} near {}",
    "{} in front of {}", "{} behind {}", "{} along with {}", "{} close to {}", "{} by {}",
)  # fmt: skip
LISTS: Final = ("{}, {} and {}", "{} and {} next to {}", "{} with {} and {}", "{}, {}, and {}")
PLACES: Final = (
    "outside", "inside", "indoors", "outdoors", "in the background", "in the foreground",
    "in the middle", "on the left", "on the right", "at the top", "in a corner", "at night",
    "in the morning", "during the day", "on a sunny day", "in bright light", "in the dark",
    "from above", "from the side", "in the distance",
)  # fmt: skip


@dataclass(frozen=True)
class Noun:
    """A synonym as sentences have it; `many` is None where it is not counted."""

    one: str | None
    many: str | None


def nouns_of(vocabulary: Vocabulary) -> list[list[Noun]]:
    """What each class can be called, its name in prompts first; verbs and traps are left out.

    A synonym that names a class only beside other words is taken with these words, where no `_` or
    end of a clause stands among them, and only for a class that has no other.
    """
    alone: list[dict[str, list[str]]] = [{} for _ in vocabulary.classes]
    beside: list[dict[str, list[str]]] = [{} for _ in vocabulary.classes]
    for form in vocabulary.forms.to_pylist():
        context = form["words_before"] + form["words_behind"]
        words = form["words"]
        is_settled = len(form["class_indices"]) == 1 and not {"_", "."} & set(words)
        if not is_settled or context >= len(words) or form["synonym"].startswith("to "):
            continue
        found = (beside if context else alone)[form["class_indices"][0]]
        found.setdefault(form["synonym"], []).append(" ".join(words))
    return [
        _first(
            [_noun(forms) for forms in (of_alone or of_beside).values()],
            vocabulary.prompt_names[index].lower(),
        )
        for index, (of_alone, of_beside) in enumerate(zip(alone, beside, strict=True))
    ]


def _first(nouns: list[Noun], name: str) -> list[Noun]:
    return sorted(nouns, key=lambda noun: name not in (noun.one, noun.many))


def _noun(forms: Sequence[str]) -> Noun:
    """A synonym from its forms, the written one first: `dog`, `dogs`; `scissors`."""
    written = forms[0]
    of = written.find(" of ")
    head = (written if of < 0 else written[:of]).rsplit(" ", 1)[-1]
    proposed = plurals(head)
    if not proposed:
        return Noun(None, written)
    start = (len(written) if of < 0 else of) - len(head)
    rest = written[start + len(head) :]
    many = [f"{written[:start]}{plural}{rest}" for plural in proposed]
    return Noun(written, next((form for form in many if form in forms), None))


def choose_noun(rng: random.Random, nouns: Sequence[Noun]) -> Noun:
    """One of a class's nouns, its name more often than the others."""
    return nouns[0] if rng.random() < NAME_RATE else rng.choice(nouns)


def sentence(rng: random.Random, nouns: Sequence[Sequence[Noun]]) -> str:
    """A sentence that speaks of one to many classes, each given by what it can be called."""
    phrases = [_phrase(rng, choose_noun(rng, each)) for each in nouns]
    while len(phrases) > 3:
        phrases[-2:] = [f"{phrases[-2]}, {phrases[-1]}"]
    frames = {1: ("{}",), 2: PAIRS, 3: LISTS}[len(phrases)]
    text = rng.choice(FRAMES).format(rng.choice(frames).format(*phrases))
    return f"{text} {rng.choice(PLACES)}" if rng.random() < PLACE_RATE else text


def _phrase(rng: random.Random, noun: Noun) -> str:
    is_many = noun.one is None or (noun.many is not None and rng.random() < MANY_RATE)
    word = (noun.many if is_many else noun.one) or ""
    if rng.random() < KIND_RATE:
        word = f"{rng.choice(KINDS)} {word}"
    return f"{rng.choice(MANY)} {word}" if is_many else with_article(rng.choice(ONE), word)


def with_article(article: str, word: str) -> str:
    """`a` before a word, as its first letter has it."""
    return f"an {word}" if article == "a" and word[:1] in "aeiou" else f"{article} {word}"
