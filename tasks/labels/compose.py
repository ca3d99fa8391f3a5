"""Compose stage: sentences for the classes that too few real captions name.

Each sentence speaks of a set of classes that real captions could have named together, and is kept
only if the labeller finds exactly these in it. So it is a caption like any other, of a source of
its own (`form = "composed"`), and is counted apart.
"""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE

import sql
from tasks.errors import InputError
from tasks.labels.label import LABELS, write_labels
from tasks.labels.sentences import Noun, nouns_of, sentence
from tasks.labels.vocabulary import Vocabulary
from tasks.workspace import Result, Stage, digests_of, recipe_of, run_stage

if TYPE_CHECKING:
    from tasks.settings import CaptionSource

LOG = logging.getLogger("tai")
COMPOSED: Final = "composed.parquet"
SCHEMA: Final = pa.schema({"text": pa.string()})
SIZES: Final = {1: 4, 2: 3, 3: 2, 4: 1}
"""How often a caption names so many classes, where there is none to tell."""
MOST_TOGETHER: Final = 6
ANY_RATE: Final = 0.05
"""How often a class stands beside another that it was never seen with."""
ROUNDS: Final = 6
TRIES: Final = 20
SHOWN: Final = 5


@task(name="compose", cache_policy=NO_CACHE, task_run_name="compose {source.source}")
def compose_captions(
    source: CaptionSource,
    vocabulary: Vocabulary,
    corpora: Sequence[Stage],
    labels: Sequence[Stage],
    seed: int,
) -> Stage:
    """As many sentences as give each class `source.at_least` captions, real ones included.

    Raises:
        InputError: there are neither real captions nor words to compose any of.

    """

    def work(out: Path) -> Result:
        real = [stage.figures["classes"] for stage in labels]
        counts = [sum(found.get(label, 0) for found in real) for label in vocabulary.classes]
        seen = together([stage.file(LABELS) for stage in labels], vocabulary)
        texts, short = compose(vocabulary, counts, seen, source.at_least, seed, out)
        if not (texts or any(counts)):
            raise InputError(
                f"source '{source.source}': no sentence names a class of vocabulary "
                f"'{vocabulary.name}'; expected synonyms that name theirs without words around"
            )
        pq.write_table(pa.table([texts], schema=SCHEMA), out / COMPOSED, compression="zstd")
        lacking = sum(count < source.at_least for count in counts)
        return Result(
            {
                "captions/composed": len(texts),
                "classes/topped_up": lacking,
                "classes/short": len(short),
            },
            {"short": short},
        )

    recipe = recipe_of(
        "compose",
        __name__,
        inputs={
            "corpus": digests_of(corpora),
            "labels": digests_of(labels),
            "vocabulary": vocabulary.digest,
        },
        parameters={"at_least": source.at_least, "seed": seed},
    )
    stage = run_stage(recipe, work)
    if stage.fresh and stage.figures["short"]:
        short = stage.figures["short"]
        named = ", ".join(f"{label} ({count})" for label, count in list(short.items())[:SHOWN])
        LOG.warning(
            "compose: %d classes stay below %d captions, as no more sentences name them alone: %s",
            len(short),
            source.at_least,
            named + (", ..." if len(short) > SHOWN else ""),
        )
    return stage


@dataclass(frozen=True)
class Together:
    """Which classes real captions name together."""

    sizes: Mapping[int, int] = field(default_factory=dict)
    """How many captions name so many classes."""
    beside: Mapping[int, Mapping[int, int]] = field(default_factory=dict)
    """By class: how many of its captions name each other class."""


def together(labels: Sequence[Path], vocabulary: Vocabulary) -> Together:
    """Sizes of label sets, and which classes stand in one, from label files."""
    if not labels:
        return Together()
    classes = vocabulary.classes
    with duckdb.connect() as connection:
        connection.read_parquet([str(path) for path in labels]).create_view("labels")
        sizes = connection.execute(sql.query("labels/sizes")).fetchall()
        pairs = connection.execute(sql.query("report/co_occurrence")).fetchall()
    place = {label: at for at, label in enumerate(classes)}
    beside: dict[int, dict[int, int]] = {}
    for one, other, count in pairs:
        if one != other:
            beside.setdefault(place[one], {})[place[other]] = int(count)
    return Together({int(size): int(count) for size, count in sizes}, beside)


def compose(
    vocabulary: Vocabulary,
    counts: Sequence[int],
    seen: Together,
    at_least: int,
    seed: int,
    folder: Path,
) -> tuple[list[str], dict[str, int]]:
    """Different sentences that make up what classes lack, and the classes that stay short.

    Args:
        vocabulary: its forms are the words, and what sentences are labelled by.
        counts: real captions of each class.
        seen: what real captions name together.
        at_least: captions that each class should have.
        seed: decides all that is drawn.
        folder: an existing one, for files that are gone afterwards.

    Returns:
        Sentences whose labels are those that they were made for, and, by class, how many captions
        those have in the end that have fewer.

    """
    nouns = nouns_of(vocabulary)
    rng = random.Random(f"compose:{seed}")  # noqa: S311
    draw = _Draw(rng, seen, [index for index, words in enumerate(nouns) if words])
    has = np.array(counts, dtype=np.int64)
    kept: list[str] = []
    met: set[str] = set()
    for _ in range(ROUNDS):
        planned = has.copy()
        planned[[not words for words in nouns]] = at_least
        drawn: list[tuple[str, tuple[int, ...]]] = []
        while (first := int(planned.argmin())) >= 0 and planned[first] < at_least:
            chosen = draw.classes(first)
            text = _new_sentence(rng, [nouns[index] for index in chosen], met)
            if text is None:
                # not again in this round
                planned[first] = at_least
                continue
            drawn.append((text, chosen))
            planned[list(chosen)] += 1
        if not drawn:
            break
        for (text, chosen), right in zip(
            drawn, _labelled_so(drawn, vocabulary, folder), strict=True
        ):
            if right:
                kept.append(text)
                has[list(chosen)] += 1
    short = {
        label: int(count)
        for label, count in zip(vocabulary.classes, has, strict=True)
        if count < at_least
    }
    return kept, short


class _Draw:
    """Sets of classes as real captions have them; each begins with a given class."""

    def __init__(self, rng: random.Random, seen: Together, speakable: Sequence[int]) -> None:
        self._rng = rng
        self._speakable = list(speakable)
        sizes = {size: count for size, count in seen.sizes.items() if size <= MOST_TOGETHER}
        self._sizes = list(sizes or SIZES)
        self._size_weights = list(itertools.accumulate((sizes or SIZES).values()))
        can = set(speakable)
        # the square root: what is rarely seen together is not hidden by what often is
        self._beside = {
            one: (
                [other for other in others if other in can],
                list(itertools.accumulate(n**0.5 for other, n in others.items() if other in can)),
            )
            for one, others in seen.beside.items()
        }

    def classes(self, first: int) -> tuple[int, ...]:
        """A set of classes in any order, `first` among them."""
        rng = self._rng
        (size,) = rng.choices(self._sizes, cum_weights=self._size_weights)
        chosen = [first]
        while len(chosen) < min(size, len(self._speakable)):
            others, weights = self._beside.get(rng.choice(chosen), ([], []))
            if others and rng.random() >= ANY_RATE:
                (other,) = rng.choices(others, cum_weights=weights)
            else:
                other = rng.choice(self._speakable)
            if other not in chosen:
                chosen.append(other)
        rng.shuffle(chosen)
        return tuple(chosen)


def _new_sentence(rng: random.Random, nouns: Sequence[Sequence[Noun]], met: set[str]) -> str | None:
    """A sentence that was not there before, or None if none is found."""
    for _ in range(TRIES):
        text = sentence(rng, nouns)
        if text not in met:
            met.add(text)
            return text
    return None


def _labelled_so(
    drawn: Sequence[tuple[str, tuple[int, ...]]], vocabulary: Vocabulary, folder: Path
) -> list[bool]:
    """Whether the labeller finds in each sentence the classes that it was made for."""
    ids = [str(number) for number in range(len(drawn))]
    texts, labels = folder / ".drawn.parquet", folder / ".labels.parquet"
    pq.write_table(pa.table({"caption_id": ids, "text": [text for text, _ in drawn]}), texts)
    write_labels([texts], vocabulary, labels)
    table = pq.read_table(labels, columns=["caption_id", "classes"])
    found = dict(zip(*(column.to_pylist() for column in table.columns), strict=True))
    texts.unlink()
    labels.unlink()
    wanted = [[vocabulary.classes[index] for index in sorted(chosen)] for _, chosen in drawn]
    return [found.get(name) == classes for name, classes in zip(ids, wanted, strict=True)]
