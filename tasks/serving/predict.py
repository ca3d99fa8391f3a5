"""Predict stage: tags for a folder of images, and a page that shows them while the work goes on.

    tags.parquet   file, tags (label and score, best first), nearest (the tag to guess at, if any)
    tags.csv       a row per file and tag: file, rank, label, score
    rejects.csv    a row per image that cannot be read: file, reason

A killed run goes on after the last whole run of images.
"""

from __future__ import annotations

import csv
import io
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE

from models.lazily import lazily
from tasks import pages
from tasks.backbone.devices import best_device, native_precision
from tasks.errors import InputError
from tasks.images.annotations import read_image_set
from tasks.images.decode import content_sha256
from tasks.methods.state import read_card
from tasks.pages import heatmaps
from tasks.places import place_of
from tasks.progress import Progress
from tasks.serving.registry import tagger_folder
from tasks.serving.tagger import Tagger, load_tagger
from tasks.workspace import (
    Result,
    digest_of,
    finish_shard,
    has_shard,
    recipe_of,
    run_stage,
    write_whole,
)

with lazily():
    import torch

TAGS: Final = "tags.parquet"
TABLE: Final = "tags.csv"
REJECTS: Final = "rejects.csv"
RESULTS: Final = ("tags.parquet", "tags.csv", "rejects.csv", "index.html")
PAGE: Final = "index.html"
IMAGES_PER_PART: Final = 128
IMAGES_PER_BATCH: Final = 16
CARDS: Final = 120
REFRESH_S: Final = 3.0
TAG: Final = pa.struct({"label": pa.string(), "score": pa.float32()})
SCHEMA: Final = pa.schema(
    {
        "file": pa.string(),
        "tags": pa.list_(TAG),
        "nearest": TAG,
        "reason": pa.string(),
    }
)


@task(name="predict", cache_policy=NO_CACHE, task_run_name="predict {images}")
def tag_folder(images: str, model: str, top: int | None, out: str) -> Path:
    """Tags of a folder's images, copied to `out`; returns the page of them."""
    folder, results = Path(images).absolute(), Path(out).absolute()
    files = check_prediction(images, top)
    fitted = tagger_folder(model)
    method, _, _ = read_card(fitted)
    results.mkdir(parents=True, exist_ok=True)
    place = best_device()

    def work(building: Path) -> Result:
        found = load_tagger(fitted, place)
        return Result(*write_tags(folder, files, found, top, building, results / PAGE))

    recipe = recipe_of(
        "predict",
        __name__,
        type(method).__module__,
        inputs={
            "images": digest_of([[file, content_sha256(folder / file)] for file in files]),
            "model": digest_of(
                [
                    [path.name, content_sha256(path)]
                    for path in sorted(fitted.iterdir())
                    if path.is_file()
                ]
            ),
        },
        parameters={
            "folder": folder.name,
            "top": top,
            "device": place,
            "precision": native_precision(place),
        },
    )
    stage = run_stage(recipe, work, resumable=True)
    for name in RESULTS:
        write_whole(results / name, stage.file(name).read_bytes())
    return results / PAGE


def tag_counts(results: Path) -> tuple[int, list[dict[str, Any]]]:
    """Images that were tagged, and of how many each tag is, as `tag_folder` has left them."""
    tags = pq.read_table(results / TAGS, columns=["tags"])["tags"].to_pylist()
    counts = Counter(tag["label"] for of_image in tags for tag in of_image)
    return len(tags), [{"tag": tag, "images": count} for tag, count in counts.most_common()]


def check_prediction(images: str, top: int | None) -> list[str]:
    """Files of a folder to be tagged, looked at before any work starts."""
    if top is not None and top < 1:
        raise InputError(f"top {top}: expected at least one tag per image")
    listing = read_image_set("folder", None, place_of(images))
    return [entry.file for entry in listing.entries]


@dataclass
class Gallery:
    """The page, written again every few seconds until all is done."""

    path: Path
    folder: Path
    total: int
    cards: list[dict[str, Any]] = field(default_factory=list)
    rejects: list[dict[str, Any]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    untagged: int = 0
    done: int = 0
    written: float = 0.0

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Show some more rows of the result."""
        for row in rows:
            self.done += 1
            self.counts.update(tag["label"] for tag in row["tags"] or ())
            if row["reason"] is not None:
                self.rejects.append(row)
                continue
            self.untagged += not row["tags"]
            if len(self.cards) < CARDS:
                picture = heatmaps.thumbnail(self.folder / row["file"], side=160)
                self.cards.append({**row, "picture": picture})
        if self.done == self.total or time.monotonic() - self.written > REFRESH_S:
            write_whole(self.path, self.render())
            self.written = time.monotonic()

    def render(self) -> str:
        """The page as it stands."""
        return pages.render(
            "gallery.html",
            folder=self.folder.name,
            total=self.total,
            done=self.done,
            refresh=round(REFRESH_S) if self.done < self.total else 0,
            cards=self.cards,
            counts=self.counts.most_common(),
            untagged=self.untagged,
            rejects=self.rejects,
            table=TABLE,
        )


def write_tags(
    folder: Path, files: Sequence[str], tagger: Tagger, top: int | None, out: Path, live: Path
) -> tuple[dict[str, int], dict[str, Any]]:
    """Tag images as `Tagger.tags` does; `live` is the page to look at meanwhile.

    Returns:
        Counts images/read = images/kept + images/rejected, and figures.

    Raises:
        InputError: no image at all can be read.

    """
    runs = [files[at : at + IMAGES_PER_PART] for at in range(0, len(files), IMAGES_PER_PART)]
    parts = [out / f"part-{number:05d}.parquet" for number in range(len(runs))]
    done = sum(len(run) for run, part in zip(runs, parts, strict=True) if has_shard(part))
    progress = Progress("predict", len(files), "images", done)
    gallery = Gallery(live, folder, len(files))
    for run, part in zip(runs, parts, strict=True):
        if has_shard(part):
            gallery.add(pq.read_table(part).to_pylist())
            continue
        rows: list[dict[str, Any]] = []
        for at in range(0, len(run), IMAGES_PER_BATCH):
            batch = run[at : at + IMAGES_PER_BATCH]
            rows += _tagged(folder, batch, tagger, top)
            gallery.add(rows[-len(batch) :])
            progress.add(len(batch))
        unfinished = part.with_suffix(".part")
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), unfinished)
        finish_shard(unfinished, part)
    table = pa.concat_tables([pq.read_table(part) for part in parts])
    good = table.filter(pc.is_null(table["reason"])).drop_columns("reason")
    bad = table.filter(pc.is_valid(table["reason"])).select(["file", "reason"])
    if not good.num_rows:
        first = bad.to_pylist()[0]
        raise InputError(f"{folder / first['file']}: {first['reason']}; no image could be read")
    pq.write_table(good, out / TAGS, compression="zstd")
    tags = [
        [row["file"], rank, tag["label"], f"{tag['score']:.6f}"]
        for row in good.to_pylist()
        for rank, tag in enumerate(row["tags"], start=1)
    ]
    write_whole(out / TABLE, _csv(["file", "rank", "label", "score"], tags))
    rejects = [[row["file"], row["reason"]] for row in bad.to_pylist()]
    write_whole(out / REJECTS, _csv(["file", "reason"], rejects))
    write_whole(out / PAGE, gallery.render())
    for part in parts:
        part.unlink()
    counts = {
        "images/read": len(files),
        "images/kept": good.num_rows,
        "images/rejected": bad.num_rows,
    }
    return counts, {"images_per_s": round(progress.rate, 2)}


def _tagged(
    folder: Path, files: Sequence[str], tagger: Tagger, top: int | None
) -> list[dict[str, Any]]:
    """A row per file: its tags, or the reason why it has none."""
    read = tagger.read([folder / file for file in files])
    images = [image for image in read if isinstance(image, torch.Tensor)]
    scores = iter(tagger.scores(images) if images else ())
    rows: list[dict[str, Any]] = []
    for file, image in zip(files, read, strict=True):
        row: dict[str, Any] = {"file": file, "tags": None, "nearest": None, "reason": None}
        if isinstance(image, str):
            row["reason"] = image
        else:
            of_image = next(scores)
            decisions = tagger.decisions(top)
            row |= {"tags": decisions.tags(of_image), "nearest": decisions.nearest(of_image)}
        rows.append(row)
    return rows


def _csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return file.getvalue()
