"""Phrases stage: what a caption is made of, each phrase through the frozen text tower alone.

A caption is cut at the spans that named classes: each span with the word before it ("a wet dog" of
"there is a wet dog on …" gives "wet dog") and each stretch of two words or more between them. A
sentence without spans (a template) is one phrase. A partition's distinct phrases are encoded once:

    phrases.arrow    a row per distinct phrase: global fixed[d], EOT, projected, L2-normalised, fp16
    captions.arrow   a row per caption: phrases list<i64>, rows of the other file;
                     named list<i64> and classes list<string>, which of its phrases name what
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE

from models.lazily import lazily
from tasks import arrow
from tasks.arrow import Indices, ranges
from tasks.backbone.devices import device_of
from tasks.backbone.loading import identity_of, load
from tasks.captions.features import Labels
from tasks.captions.sentences import vectors_of
from tasks.progress import Progress
from tasks.workspace import Result, Stage, recipe_of, run_stage

with lazily():
    import torch
    from torch.nn import functional as F

    from models.examples import PhraseBatch

if TYPE_CHECKING:
    from models.backbone import Backbone
    from tasks.profile import Profile

PHRASES: Final = "phrases.arrow"
CAPTIONS: Final = "captions.arrow"
FEWEST_WORDS: Final = 2
"""Words of a stretch without a class that makes a phrase."""
LAST_WORD: Final = re.compile(r"(\w[\w'-]*)\W*$")
EDGES: Final = ' \t\n,.;:!?()"“”'


@task(name="phrases", cache_policy=NO_CACHE, task_run_name="phrases {part}")
def encode_phrases(profile: Profile, choice: Stage, part: str) -> Stage:
    """Features of the phrases of one partition of the chosen captions."""
    parts = list(choice.figures["store_bytes"])
    captions = f"{part}.parquet"

    def work(out: Path) -> Result:
        name = f"phrases, part {parts.index(part) + 1} of {len(parts)}"
        return Result(write_phrases(choice.file(captions), load(profile).backbone, out, name), {})

    recipe = recipe_of(
        "phrases",
        __name__,
        inputs={"captions": choice.manifest["outputs"][captions], "backbone": identity_of(profile)},
        parameters={"device": device_of(profile)},
    )
    return run_stage(recipe, work)


def cut(text: str, spans: Sequence[Mapping[str, Any]]) -> list[tuple[str, tuple[str, ...]]]:
    """Phrases of a caption in order, each with the classes that it names.

    Args:
        text: the caption.
        spans: `class` and half-open `start` and `end`; those at one place name it together.

    """
    named: dict[tuple[int, int], list[str]] = {}
    for span in spans:
        named.setdefault((int(span["start"]), int(span["end"])), []).append(str(span["class"]))
    if not named:
        return [(text, ())]
    found: list[tuple[str, tuple[str, ...]]] = []
    at = 0
    for (start, end), classes in sorted(named.items()):
        before = text[at:start]
        word = LAST_WORD.search(before)
        begins = at + (word.start() if word else len(before))
        found += _stretch(text[at:begins])
        found.append((text[begins:end].strip(EDGES), tuple(classes)))
        at = end
    found += _stretch(text[at:])
    return found


def _stretch(text: str) -> list[tuple[str, tuple[str, ...]]]:
    bare = text.strip(EDGES)
    return [(bare, ())] if len(bare.split()) >= FEWEST_WORDS else []


def write_phrases(captions: Path, backbone: Backbone, out: Path, name: str) -> dict[str, int]:
    """Cut and encode a partition's captions (text, spans); progress goes by `name`.

    Returns counts of captions, of phrases and of distinct ones.
    """
    table = pq.read_table(captions, columns=["text", "spans"])
    index: dict[str, int] = {}
    rows: list[list[int]] = []
    places: list[list[int]] = []
    classes: list[list[str]] = []
    for text, spans in zip(table["text"].to_pylist(), table["spans"].to_pylist(), strict=True):
        phrases = cut(text, spans)
        rows.append([index.setdefault(phrase, len(index)) for phrase, _ in phrases])
        named = [(place, label) for place, (_, found) in enumerate(phrases) for label in found]
        places.append([place for place, _ in named])
        classes.append([label for _, label in named])
    features = vectors_of(list(index), backbone, Progress(name, len(index), "phrases"))
    arrow.write_rows(out / PHRASES, {"global": arrow.vectors(features)})
    columns = {
        "phrases": _lists(rows, pa.int64()),
        "named": _lists(places, pa.int64()),
        "classes": _lists(classes, pa.string()),
    }
    arrow.write_rows(out / CAPTIONS, columns)
    return {
        "captions": len(rows),
        "phrases": sum(map(len, rows)),
        "phrases/distinct": len(index),
    }


def _lists(values: Sequence[Sequence[Any]], kind: pa.DataType) -> pa.LargeListArray:
    flat = pa.array([each for of_row in values for each in of_row], kind)
    return arrow.lists(torch.tensor([len(of_row) for of_row in values]), flat)


class CaptionPhrases:
    """Stored phrases of a choose stage's captions, partition by partition, read by batch.

    Args:
        choice: the choose stage's folder.
        phrases: folder of each partition's phrases, in order.
        classes: labels are columns in their order.

    """

    def __init__(self, choice: Path, phrases: Sequence[Path], classes: Sequence[str]) -> None:
        self._labels = Labels(choice, classes)
        column = {label: place for place, label in enumerate(classes)}
        files = [(arrow.read_rows(each / PHRASES), each / CAPTIONS) for each in phrases]
        self._features = [arrow.matrix_of(features.rows["global"]) for features, _ in files]
        firsts = np.cumsum([0, *map(len, self._features)])
        rows, offsets, named, named_classes, named_offsets = ([] for _ in range(5))
        for first, (_, path) in zip(firsts, files, strict=False):
            captions = arrow.read_rows(path).rows
            rows.append(captions["phrases"].values.to_numpy() + first)
            offsets.append(np.diff(captions["phrases"].offsets.to_numpy()))
            named.append(captions["named"].values.to_numpy())
            names = captions["classes"].values.to_pylist()
            named_classes.append(np.array([column[name] for name in names], dtype=np.int64))
            named_offsets.append(np.diff(captions["named"].offsets.to_numpy()))
        self._firsts = firsts
        self._rows, self._lengths = np.concatenate(rows), np.concatenate(offsets)
        self._starts = np.cumsum(self._lengths) - self._lengths
        self._named, self._classes = np.concatenate(named), np.concatenate(named_classes)
        self._counts = np.concatenate(named_offsets)
        self._named_starts = np.cumsum(self._counts) - self._counts

    def __len__(self) -> int:
        return len(self._labels)

    def batch(self, rows: torch.Tensor, device: torch.device) -> PhraseBatch:
        """See `models.examples.Examples.batch`."""
        wanted = rows.numpy()
        lengths, counts = self._lengths[wanted], self._counts[wanted]
        features = self._gather(self._rows[ranges(self._starts[wanted], lengths)])
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        named = np.empty(0, dtype=np.int64)
        classes = named
        if counts.sum():
            at = ranges(self._named_starts[wanted], counts)
            named = self._named[at] + np.repeat(offsets[:-1], counts)
            classes = self._classes[at]
        # rounding has left them a little off unit length
        unit = F.normalize(torch.from_numpy(features).to(device).float(), dim=-1)
        return PhraseBatch(
            unit,
            torch.from_numpy(offsets).to(device),
            torch.from_numpy(named).to(device),
            torch.from_numpy(classes).to(device),
            self._labels.of(wanted).to(device),
        )

    def _gather(self, wanted: Indices) -> Any:
        found = np.empty((len(wanted), self._features[0].shape[1]), self._features[0].dtype)
        for first, features in self._parts():
            here = (wanted >= first) & (wanted < first + len(features))
            found[here] = features[wanted[here] - first]
        return found

    def _parts(self) -> Iterator[tuple[int, Any]]:
        return zip(self._firsts.tolist(), self._features, strict=False)
