"""Captions: what people might write about a scene, by a small grammar and a seed.

Like people, a caption leaves out things (about a third), calls them by other words than the class
name, gets plurals, counts, colours, sizes and places right, and mentions what is no class.
"""

import csv
import functools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tasks.labels.inflections import plurals
from tasks.world.scenes import SIDE, Placed, Scene

WORDS: Final = Path(__file__).parent / "words.csv"
OMITTED: Final = (0.0, 0.32, 0.42, 0.5)
"""How often a thing is left out, by the number of different things; one is always mentioned."""
NAME_RATE: Final = 0.3
"""How often a thing is called by its class name."""
LOOSE_RATE: Final = 0.12
"""How often by a vague word that no vocabulary lists (`something to read`)."""
PAIRS: Final = frozenset(
    {"scissors", "shears", "glasses", "spectacles", "eyeglasses", "headphones", "earphones"}
)
MASSES: Final = frozenset(
    {"luggage", "baggage", "cattle", "sunshine", "daylight", "coffee", "stemware", "fast food"}
)
NUMBERS: Final = {2: ("two", "two", "a couple of", "a pair of"), 3: ("three",), 4: ("four",)}
OPENINGS: Final = (
    "a photo of {}",
    "a picture of {}",
    "an image of {}",
    "a close up of {}",
    "a drawing of {}",
    "a view of {}",
    "there is {} here",
    "we can see {}",
    "this is {}",
    "someone left {} behind",
    "look at {}",
    "it shows {}",
    "{} in the middle of nowhere",
    "{} for sale",
    "{} at rest",
)
PLACES: Final = (
    "in the park",
    "on the street",
    "by the beach",
    "at the market",
    "in the grass",
    "under the sky",
    "near the wall",
    "in a room",
    "at night",
    "in the morning",
    "on a windy day",
    "near some people",
    "while a man waits",
    "with a woman and a child nearby",
    "seen by the neighbors",
)
JOINS: Final = (
    "{} and {}",
    "{} with {}",
    "{} next to {}",
    "{} near {}",
    "{} beside {}",
    "{} together with {}",
    "{} close to {}",
    "{} plus {}",
)
MOODS: Final = ("nice", "pretty", "old", "new", "funny", "lonely", "plain", "odd", "shiny", "cheap")


@dataclass(frozen=True)
class Caption:
    """A sentence and what it speaks of."""

    text: str
    mentioned: tuple[str, ...]
    """Things that it mentions, classes or not, in its order."""


@dataclass(frozen=True)
class Words:
    """What people call a thing."""

    name: str
    synonyms: tuple[str, ...]
    loose: tuple[str, ...]


@dataclass(frozen=True)
class _Group:
    """All drawings of one thing in a scene."""

    name: str
    placed: tuple[Placed, ...]

    @property
    def centre(self) -> tuple[float, float]:
        count = len(self.placed)
        return sum(p.x for p in self.placed) / count, sum(p.y for p in self.placed) / count


def name_all(scene: Scene) -> str:
    """The plainest caption: everything by its own name (`a dog and a traffic light`)."""
    names = dict.fromkeys(placed.glyph.name for placed in scene.placed)
    return " and ".join(_article(name) for name in names)


def describe(rng: random.Random, scene: Scene) -> Caption:
    """One caption of a scene, chosen by `rng` alone."""
    grouped: dict[str, list[Placed]] = {}
    for placed in scene.placed:
        grouped.setdefault(placed.glyph.name, []).append(placed)
    groups = [_Group(name, tuple(drawn)) for name, drawn in grouped.items()]
    rng.shuffle(groups)
    rate = OMITTED[len(groups) - 1]
    mentioned = [group for group in groups if rng.random() >= rate] or groups[:1]
    text = _sentence(rng, mentioned, scene)
    if rng.random() < 0.12:
        text = text[0].upper() + text[1:]
    if rng.random() < 0.5:
        text += "."
    return Caption(text, tuple(group.name for group in mentioned))


def _sentence(rng: random.Random, groups: Sequence[_Group], scene: Scene) -> str:
    phrases = [_phrase(rng, group) for group in groups]
    if len(phrases) == 2:
        text = _join(rng, groups, phrases)
    elif len(phrases) > 2 and rng.random() < 0.4:
        text = f"{_join(rng, groups[:2], phrases[:2])}, and {' and '.join(phrases[2:])}"
    elif len(phrases) > 2:
        text = f"{', '.join(phrases[:-1])} and {phrases[-1]}"
    else:
        text = phrases[0]
        if rng.random() < 0.2:
            text = f"{text} {_corner(groups[0])}"
    if rng.random() < 0.3:
        text = rng.choice(OPENINGS).format(text)
    chance = rng.random()
    if chance < 0.2:
        return f"{text} {rng.choice(PLACES)}"
    if chance < 0.35:
        return f"{text} on {_article(scene.ground)} {rng.choice(('background', 'wall', 'ground'))}"
    return text


def _join(rng: random.Random, groups: Sequence[_Group], phrases: Sequence[str]) -> str:
    """Two phrases, now and then by where the things stand."""
    if rng.random() < 0.35:
        (x, y), (other_x, other_y) = groups[0].centre, groups[1].centre
        if abs(x - other_x) > abs(y - other_y):
            relation = "to the left of" if x < other_x else "to the right of"
        else:
            relation = "above" if y < other_y else "below"
        return f"{phrases[0]} {relation} {phrases[1]}"
    return rng.choice(JOINS).format(*phrases)


def _corner(group: _Group) -> str:
    x, y = group.centre
    across = "on the left" if x < SIDE / 3 else "on the right" if x > 2 * SIDE / 3 else ""
    along = "at the top" if y < SIDE / 3 else "at the bottom" if y > 2 * SIDE / 3 else ""
    return across or along or "in the middle"


def _phrase(rng: random.Random, group: _Group) -> str:
    """A noun phrase: how many, how large, which colour, and what."""
    words = vocabulary()[group.name]
    chance = rng.random()
    if words.loose and chance < LOOSE_RATE:
        noun = rng.choice(words.loose)
    elif words.synonyms and chance >= LOOSE_RATE + NAME_RATE:
        noun = rng.choice(words.synonyms)
    else:
        noun = words.name
    adjectives = []
    size = max(placed.size for placed in group.placed)
    if rng.random() < 0.15 and (size > 56 or size < 38):
        adjectives.append(rng.choice(("large", "big") if size > 56 else ("small", "little")))
    if rng.random() < 0.08:
        adjectives.append(rng.choice(MOODS))
    colours = {placed.colour for placed in group.placed}
    if rng.random() < 0.35 and len(colours) == 1:
        adjectives.append(next(iter(colours)))
    before = " ".join(adjectives)
    count = len(group.placed)
    if noun in PAIRS:
        many = f"{rng.choice(NUMBERS[count][:2])} pairs of" if count > 1 else "a pair of"
        return " ".join(part for part in (many, before, noun) if part)
    if noun in MASSES:
        return " ".join(part for part in ("some", before, noun) if part)
    if count > 1:
        many = rng.choice((*NUMBERS[count], "some", "several" if count > 2 else "some"))
        return " ".join(part for part in (many, before, _plural(noun)) if part)
    phrase = f"{before} {noun}" if before else noun
    return f"the {phrase}" if rng.random() < 0.2 else _article(phrase)


def _article(phrase: str) -> str:
    return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"


@functools.cache
def _plural(noun: str) -> str:
    head, of, rest = noun.partition(" of ")
    for preposition in (" to ", " in ", " on "):
        if preposition in head:
            first, _, last = head.partition(preposition)
            return f"{_plural(first)}{preposition}{last}{of}{rest}"
    *before, last = head.split(" ")
    return " ".join([*before, (plurals(last) or (last,))[0]]) + of + rest


@functools.cache
def vocabulary() -> Mapping[str, Words]:
    """What each thing is called, from `words.csv`."""
    found: dict[str, dict[str, list[str]]] = {}
    with WORDS.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            of_thing = found.setdefault(row["name"], {"name": [], "synonym": [], "loose": []})
            of_thing[row["kind"]].append(row["word"])
    return {
        name: Words(name, tuple(kinds["synonym"]), tuple(kinds["loose"]))
        for name, kinds in found.items()
    }
