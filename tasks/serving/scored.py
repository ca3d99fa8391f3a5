"""Folder-scores stage: all scores of a folder's pictures by a model, for a review of its tags."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE

from models.decisions import decisions_for
from models.lazily import lazily
from tasks.backbone.devices import best_device, native_precision
from tasks.errors import InputError
from tasks.images.annotations import read_image_set
from tasks.images.decode import content_sha256
from tasks.methods.state import read_fitted
from tasks.progress import Progress
from tasks.results.review import Tagged, tagged
from tasks.serving.registry import tagger_folder
from tasks.serving.tagger import RATE, Tagger, load_tagger
from tasks.workspace import Result, digest_of, recipe_of, run_stage

with lazily():
    import torch

SCORES: Final = "scores.parquet"
IMAGES_PER_BATCH: Final = 16


@task(name="folder scores", cache_policy=NO_CACHE, task_run_name="folder scores {images}")
def tagged_of_folder(images: str, model: str) -> Tagged:
    """A folder's pictures as `flows.predict` tags them; one that cannot be read is left out.

    Raises:
        InputError: no picture can be read, or there is no such model.

    """
    folder, fitted = Path(images).absolute(), tagger_folder(model)
    files = [entry.file for entry in read_image_set("folder", None, folder).entries]
    place = best_device()
    known = read_fitted(fitted)

    def work(out: Path) -> Result:
        return Result(write_scores(folder, files, load_tagger(fitted, place), out), {})

    parts = sorted(path for path in fitted.iterdir() if path.is_file())
    recipe = recipe_of(
        "folder-scores",
        __name__,
        type(known.method).__module__,
        inputs={
            "images": digest_of([[file, content_sha256(folder / file)] for file in files]),
            "model": digest_of([[path.name, content_sha256(path)] for path in parts]),
        },
        parameters={"device": place, "precision": native_precision(place)},
    )
    table = pq.read_table(run_stage(recipe, work).file(SCORES))
    scores = torch.from_numpy(np.stack(table["scores"].to_numpy())).float()
    found = decisions_for(scores, known.classes, known.card.get(RATE))
    thresholds = found.thresholds if found else None
    if thresholds is None and "thresholds" in known.card:
        thresholds = torch.tensor(known.card["thresholds"], dtype=torch.float64)
    return tagged(
        name=folder.name,
        folder=folder,
        files=table["file"].to_pylist(),
        classes=known.classes,
        scores=scores,
        thresholds=thresholds,
        run_id=None,
        model=model,
    )


def write_scores(folder: Path, files: Sequence[str], tagger: Tagger, out: Path) -> dict[str, int]:
    """Write scores.parquet, a row per picture that can be read; returns counts."""
    progress = Progress("folder scores", len(files), "images")
    kept: list[str] = []
    scores: list[torch.Tensor] = []
    reason = ""
    for at in range(0, len(files), IMAGES_PER_BATCH):
        batch = files[at : at + IMAGES_PER_BATCH]
        read = tagger.read([folder / file for file in batch])
        pairs = zip(batch, read, strict=True)
        good = {file: image for file, image in pairs if isinstance(image, torch.Tensor)}
        reason = next((image for image in read if isinstance(image, str)), reason)
        if good:
            kept += good
            scores.append(tagger.scores(list(good.values())).float())
        progress.add(len(batch))
    if not kept:
        raise InputError(f"{folder}: no picture can be read; the last: {reason}")
    table = pa.table({"file": kept, "scores": torch.cat(scores).tolist()})
    pq.write_table(table, out / SCORES, compression="zstd")
    return {
        "images/read": len(files),
        "images/kept": len(kept),
        "images/rejected": len(files) - len(kept),
    }
