"""Folder-scores stage: all scores of a folder's pictures by a model, for their tags and a review.

    scores.parquet   file, scores [C] (null where the file cannot be read), reason

A killed run goes on after the last whole run of images. Thresholds are no part of it: they are set
by these scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE

from models.lazily import lazily
from tasks.backbone.devices import best_device, native_precision
from tasks.errors import InputError
from tasks.images.annotations import read_image_set
from tasks.images.decode import content_sha256
from tasks.images.entries import Listing
from tasks.methods.state import Fitted, read_fitted
from tasks.progress import Progress
from tasks.results.review import Tagged, tagged
from tasks.serving.named import Model, find_model
from tasks.serving.tagger import Tagger, decisions_of, digest_of_tagger, load_tagger
from tasks.workspace import (
    Result,
    Stage,
    digest_of,
    finish_shard,
    has_shard,
    recipe_of,
    run_stage,
)

with lazily():
    import torch

SCORES: Final = "scores.parquet"
IMAGES_PER_PART: Final = 128
IMAGES_PER_BATCH: Final = 16
SCHEMA: Final = pa.schema(
    {"file": pa.string(), "scores": pa.list_(pa.float32()), "reason": pa.string()}
)
Row = dict[str, Any]
"""`file`, and `scores` [C] or the `reason` why there are none."""


@dataclass(frozen=True)
class Scored:
    """A folder's pictures and their scores."""

    folder: Path
    listing: Listing
    model: Model
    fitted: Fitted
    stage: Stage

    def rows(self) -> Iterator[list[Row]]:
        """All rows in the files' order, some at a time."""
        for batch in pq.ParquetFile(self.stage.file(SCORES)).iter_batches(IMAGES_PER_PART):
            yield batch.to_pylist()

    def scores(self) -> tuple[list[str], torch.Tensor]:
        """Files that could be read, and their scores [N, C]."""
        table = pq.read_table(self.stage.file(SCORES), columns=["file", "scores"])
        table = table.filter(pc.is_valid(table["scores"]))
        flat = pc.list_flatten(table["scores"]).to_numpy()
        scores = torch.from_numpy(np.array(flat)).view(len(table), len(self.fitted.classes))
        return table["file"].to_pylist(), scores


def score_folder(images: str, model: str, seen: Callable[[Sequence[Row]], None]) -> Scored:
    """The scores of all pictures of a folder; `seen` is handed each few rows as they are made.

    Raises:
        InputError: no picture can be read, or there is no such model.

    """
    folder, found = Path(images).absolute(), find_model(model)
    listing = read_image_set("folder", None, folder)
    files = [entry.file for entry in listing.entries]
    place = best_device()
    fitted = read_fitted(found.folder)

    def work(out: Path) -> Result:
        tagger = load_tagger(found.folder, place)
        return Result(*write_scores(folder, files, tagger, out, seen))

    recipe = recipe_of(
        "folder-scores",
        __name__,
        *fitted.method.modules(),
        inputs={
            "images": digest_of([[file, content_sha256(folder / file)] for file in files]),
            "model": digest_of_tagger(found.folder),
        },
        parameters={"device": place, "precision": native_precision(place)},
    )
    return Scored(folder, listing, found, fitted, run_stage(recipe, work, resumable=True))


@task(name="folder scores", cache_policy=NO_CACHE, task_run_name="folder scores {images}")
def tagged_of_folder(images: str, model: str) -> Tagged:
    """A folder's pictures as `flows.predict` tags them; one that cannot be read is left out.

    Raises:
        InputError: no picture can be read, or there is no such model.

    """
    found = score_folder(images, model, lambda _: None)
    files, scores = found.scores()
    return tagged(
        name=found.folder.name,
        folder=found.folder,
        files=files,
        classes=found.fitted.classes,
        scores=scores,
        thresholds=decisions_of(found.fitted, scores, None).thresholds,
        run_id=None,
        model=found.model.address,
    )


def write_scores(
    folder: Path,
    files: Sequence[str],
    tagger: Tagger,
    out: Path,
    seen: Callable[[Sequence[Row]], None],
) -> tuple[dict[str, int], dict[str, Any]]:
    """Write scores.parquet, a row per file.

    Returns:
        Counts images/read = images/kept + images/rejected, and figures.

    Raises:
        InputError: no image at all can be read.

    """
    runs = [files[at : at + IMAGES_PER_PART] for at in range(0, len(files), IMAGES_PER_PART)]
    parts = [out / f"part-{number:05d}.parquet" for number in range(len(runs))]
    done = sum(len(run) for run, part in zip(runs, parts, strict=True) if has_shard(part))
    progress = Progress("folder scores", len(files), "images", done)
    for run, part in zip(runs, parts, strict=True):
        if has_shard(part):
            seen(pq.read_table(part).to_pylist())
            continue
        rows: list[Row] = []
        for at in range(0, len(run), IMAGES_PER_BATCH):
            batch = scored_rows(folder, run[at : at + IMAGES_PER_BATCH], tagger)
            rows += batch
            seen(batch)
            progress.add(len(batch))
        unfinished = part.with_suffix(".part")
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), unfinished)
        finish_shard(unfinished, part)
    kept, reason = 0, ""
    with pq.ParquetWriter(out / SCORES, SCHEMA, compression="zstd") as writer:
        for part in parts:
            table = pq.read_table(part, schema=SCHEMA)
            kept += len(table) - table["scores"].null_count
            reason = next((str(each) for each in table["reason"] if each.is_valid), reason)
            writer.write_table(table)
    if not kept:
        raise InputError(f"{folder}: no picture can be read; one of them: {reason}")
    for part in parts:
        part.unlink()
    counts = {
        "images/read": len(files),
        "images/kept": kept,
        "images/rejected": len(files) - kept,
    }
    return counts, {"images_per_s": round(progress.rate, 2)}


def scored_rows(folder: Path, files: Sequence[str], tagger: Tagger) -> list[Row]:
    """A row per file: its scores, or the reason why it has none."""
    read = tagger.read([folder / file for file in files])
    images = [image for image in read if isinstance(image, torch.Tensor)]
    scores = iter(tagger.scores(images).float() if images else ())
    return [
        {"file": file, "scores": None, "reason": image}
        if isinstance(image, str)
        else {"file": file, "scores": next(scores).tolist(), "reason": None}
        for file, image in zip(files, read, strict=True)
    ]
