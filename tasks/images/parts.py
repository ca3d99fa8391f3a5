"""Partition stage: a tower's work on some images of a folder, each known by its content.

    contents.parquet    a row per image: content, and where its result lies (shard, row), with a
                        SHA-256 of it (digest); null where it cannot be decoded
    shard-00000.arrow   a row per image that can be: one array for each thing that is worked out

What a partition holds is known by content alone, so images that are moved, copied or met in another
set cost nothing. New images, wherever in the list they stand, are partitions of their own: of those
that are not stored yet, the next IMAGES_PER_PART, then the next ones.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE

from models.lazily import lazily
from tasks import arrow
from tasks.images.ahead import Read, decoded
from tasks.images.decode import content_sha256
from tasks.images.stored import CONTENTS, placed, shard_columns
from tasks.places import Address, Place
from tasks.progress import Progress
from tasks.workspace import (
    Recipe,
    Result,
    Stage,
    digest_of,
    find_stage,
    finished,
    has_shard,
    recipe_of,
    run_stage,
)

with lazily():
    import torch

LOG = logging.getLogger("tai")
IMAGES_PER_PART: Final = 1024
IMAGES_PER_SHARD: Final = 256
IMAGES_PER_BATCH: Final = 16
Encode: TypeAlias = "Callable[[torch.Tensor], Mapping[str, torch.Tensor]]"
"""Images [16, 3, R, R] on the CPU -> what is worked out, by name: [16, ...] on the CPU."""


class Encoder(Protocol):
    """What is worked out of images, and what that depends on but them."""

    @property
    def stage(self) -> str:
        """Name of the partitions' stage."""

    @property
    def modules(self) -> tuple[str, ...]:
        """Where the work's code begins."""

    def inputs(self) -> Mapping[str, str]:
        """Digests of what it reads besides images."""

    def parameters(self) -> Mapping[str, Any]:
        """What else the results depend on."""

    def load(self) -> tuple[Any, Encode]:
        """How an image is prepared ([3, R, R] of a picture), and the work itself."""


@dataclass(frozen=True)
class Pictures:
    """Files of a folder."""

    folder: Place
    files: tuple[str, ...]
    contents: tuple[str | None, ...]
    """What tells each one's bytes; None where there are none."""


@dataclass(frozen=True)
class Part:
    """Images that are worked on together."""

    folder: Place
    files: tuple[str, ...]
    contents: tuple[str, ...]


def pictures_of(folder: Place, files: Sequence[str]) -> Pictures:
    """Files with their contents: SHA-256 here, and what its store says at an address."""
    if isinstance(folder, Address):
        there = folder.files()
        return Pictures(folder, tuple(files), tuple(there.get(file) for file in files))
    contents = tuple(content_sha256(folder / file) for file in files)
    return Pictures(folder, tuple(files), contents)


def missing_parts(encoder: Encoder, sets: Sequence[Pictures]) -> list[Part]:
    """The images of some sets that are in no finished partition, cut in their order."""
    wanted = {content for each in sets for content in each.contents if content}
    return _cut(sets, _stored(encoder, wanted))


def parts_of(encoder: Encoder, pictures: Pictures) -> list[Stage]:
    """Partitions that hold all pictures; what is missing is worked out here and now."""
    pairs = zip(pictures.contents, pictures.files, strict=True)
    files = {content: file for content, file in pairs if content}
    found = _stored(encoder, set(files))
    missing = _cut([pictures], found)
    left = sum(len(part.files) for part in missing)
    progress = Progress("images", len(files), "images", len(files) - left if left else 0)
    stages = []
    for key, contents in found.items():
        if files.keys() >= set(contents):
            # so that it is made anew, by this process, where it turns out to be damaged
            again = Part(pictures.folder, tuple(files[one] for one in contents), tuple(contents))
            stages.append(_run(encoder, again, progress))
        else:
            stages.append(find_stage(encoder.stage, key))
    return stages + [_run(encoder, part, progress) for part in missing]


@task(name="images, part", cache_policy=NO_CACHE, task_run_name="images, part {number} of {parts}")
def run_part(encoder: Encoder, part: Part, number: int, parts: int, progress: Progress) -> None:
    """One partition, as the `number`-th of `parts`; `parts_of` finds it."""
    _run(encoder, part, progress)


def _stored(encoder: Encoder, wanted: Set[str]) -> dict[str, list[str]]:
    """Contents, by key, of finished partitions of this encoder that together hold what there is."""
    like = _but_images(_recipe(encoder, ()).values)
    found: list[tuple[int, str, list[str]]] = []
    for stage in finished(encoder.stage, CONTENTS):
        if _but_images(stage.manifest) != like:
            continue
        table = pq.read_table(stage.place / CONTENTS, columns=["content"])
        contents = table["content"].to_pylist()
        held = len(wanted & set(contents))
        if held:
            found.append((-held, stage.key, contents))
    left = set(wanted)
    useful = {}
    for _, key, contents in sorted(found):
        if not left.isdisjoint(contents):
            left.difference_update(contents)
            useful[key] = contents
    return useful


def _but_images(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a partition's results depend on besides its images."""
    inputs = {name: digest for name, digest in values["inputs"].items() if name != "images"}
    return {"code": values["code"], "parameters": values["parameters"], "inputs": inputs}


def _cut(sets: Sequence[Pictures], stored: Mapping[str, Sequence[str]]) -> list[Part]:
    """Images that are not stored, each once, in partitions of one folder each."""
    known = {content for contents in stored.values() for content in contents}
    parts = []
    for pictures in sets:
        new: dict[str, str] = {}
        for content, file in zip(pictures.contents, pictures.files, strict=True):
            if content and content not in known:
                new.setdefault(content, file)
        known.update(new)
        contents, files = tuple(new), tuple(new.values())
        for start in range(0, len(new), IMAGES_PER_PART):
            some = slice(start, start + IMAGES_PER_PART)
            parts.append(Part(pictures.folder, files[some], contents[some]))
    return parts


def _recipe(encoder: Encoder, contents: Sequence[str]) -> Recipe:
    return recipe_of(
        encoder.stage,
        __name__,
        *encoder.modules,
        inputs={"images": digest_of(list(contents)), **encoder.inputs()},
        parameters=encoder.parameters(),
    )


def _run(encoder: Encoder, part: Part, progress: Progress) -> Stage:
    def work(out: Path) -> Result:
        return Result(*write_part(part, encoder.load, out, progress))

    return run_stage(_recipe(encoder, part.contents), work, resumable=True)


def write_part(
    part: Part, load: Callable[[], tuple[Any, Encode]], out: Path, progress: Progress
) -> tuple[dict[str, int], dict[str, Any]]:
    """Work on a partition's images shard by shard; those that a killed run has left are kept.

    Args:
        part: its images.
        load: see `Encoder.load`; called if there is anything left to do.
        out: where to.
        progress: counts every image.

    Returns:
        Counts images/read = images/kept + images/rejected, and figures.

    """
    images = len(part.files)
    cuts = [slice(start, start + IMAGES_PER_SHARD) for start in range(0, images, IMAGES_PER_SHARD)]
    shards = [(out / f"shard-{number:05d}.arrow", rows) for number, rows in enumerate(cuts)]
    pending = [(path, rows) for path, rows in shards if not has_shard(path)]
    batches = [
        [part.folder / file for file in part.files[rows][start : start + IMAGES_PER_BATCH]]
        for _, rows in pending
        for start in range(0, len(part.files[rows]), IMAGES_PER_BATCH)
    ]
    new = sum(map(len, batches))
    progress.skip(images - new)
    started = time.monotonic()
    if pending:
        preprocess, encode = load()
        images_ahead = decoded(batches, preprocess)
        for path, rows in pending:
            contents = part.contents[rows]
            of_shard = islice(images_ahead, -(-len(contents) // IMAGES_PER_BATCH))
            arrow.write_rows(path, _worked_out(of_shard, contents, encode, progress))
    seconds = time.monotonic() - started
    table = pa.concat_tables([placed(part.contents[rows], path) for path, rows in shards])
    pq.write_table(table, out / CONTENTS, compression="zstd")
    rejected = table["digest"].null_count
    counts = {
        "images/read": images,
        "images/kept": images - rejected,
        "images/rejected": rejected,
    }
    return counts, {"images_per_s": round(new / seconds, 2) if new else 0.0}


def _worked_out(
    batches: Iterable[Sequence[Read]], contents: Sequence[str], encode: Encode, progress: Progress
) -> dict[str, pa.Array]:
    """Columns of a shard: content, digest, and what is worked out of images that can be decoded.

    A batch has always IMAGES_PER_BATCH places, and an image keeps its own whatever is beside it:
    the last bits of a result depend on the number of images that are computed together.
    """
    kept: list[str] = []
    found: dict[str, list[torch.Tensor]] = {}
    start = 0
    for batch in batches:
        good = {place: image for place, image in enumerate(batch) if not isinstance(image, str)}
        if good:
            side = next(iter(good.values())).shape
            images = torch.zeros(IMAGES_PER_BATCH, *side)
            for place, image in good.items():
                images[place] = image
            kept += [contents[start + place] for place in good]
            for name, result in encode(images).items():
                found.setdefault(name, []).append(result[list(good)])
        start += len(batch)
        progress.add(len(batch))
    return shard_columns(kept, {name: torch.cat(parts) for name, parts in found.items()})
