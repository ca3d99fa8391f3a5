"""Predict stage: tags for a folder of images, by thresholds that its own scores set.

    tags.parquet      file, tags (label and score, best first), nearest (the tag to guess at)
    tags.csv          a row per file and tag: file, rank, label, score
    rejects.csv       a row per image that cannot be read: file, reason
    thresholds.json   threshold by class; none where there are none

They come to lie in the folder that was asked for, with `passed_over.csv` (what else lies among the
images, and why it is none) and `index.html`, a page that is there while the work goes on.
"""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE

from models.decisions import Decisions
from models.lazily import lazily
from tasks.errors import InputError
from tasks.images.annotations import read_image_set
from tasks.images.folders import passed_over_told
from tasks.methods.state import Fitted, read_fitted
from tasks.pages.gallery import Gallery
from tasks.places import Address, place_of
from tasks.results.tags import SCHEMA, TABLE, TAGS, THRESHOLDS, csv_text
from tasks.serving.named import Model, find_model
from tasks.serving.scored import Row, Scored, score_folder
from tasks.serving.tagger import decisions_of, rate_of, stored_thresholds, told_of
from tasks.workspace import Result, Stage, recipe_of, run_stage, write_whole

with lazily():
    import torch

REJECTS: Final = "rejects.csv"
PASSED_OVER: Final = "passed_over.csv"
RESULTS: Final = (TAGS, TABLE, REJECTS, THRESHOLDS)
PAGE: Final = "index.html"


@dataclass(frozen=True)
class Prediction:
    """What a folder's tags have come to."""

    page: Path
    images: int
    """How many could be read."""
    tags: dict[str, int]
    """Of how many images each tag is, the most frequent first."""
    told: tuple[str, ...]
    """Sentences: how many have tags, by which thresholds, what was passed over, what to do next."""


@task(name="predict", cache_policy=NO_CACHE, task_run_name="predict {images}")
def tag_folder(images: str, model: str, top: int | None, out: str) -> Prediction:
    """Tags of a folder's images, copied to `out`, and the page of them."""
    files = check_prediction(images, top)
    folder, results = place_of(images), Path(out).absolute()
    if isinstance(folder, Address):
        raise InputError(
            f"{images}: expected a folder here; at an address pictures are tagged as an image set "
            "of a profile ([[images]])"
        )
    found = find_model(model)
    fitted = read_fitted(found.folder)
    about = _about(found, fitted) | {"review": _review_command(folder, found)}
    results.mkdir(parents=True, exist_ok=True)
    gallery = Gallery(results / PAGE, folder, len(files), about)

    def seen(rows: Sequence[Row]) -> None:
        for_now = Decisions(fitted.classes, stored_thresholds(fitted.card), top)
        gallery.add([_tagged(row, for_now) for row in rows])

    scored = score_folder(images, found.address, seen)
    stage = _tags(scored, top)
    for name in RESULTS:
        write_whole(results / name, stage.file(name).read_bytes())
    others = scored.listing.others
    write_whole(results / PASSED_OVER, csv_text(["file", "reason"], list(others.items())))
    told = told_of(fitted.card, stage.counts["images/kept"], top)
    whole = gallery.anew(told, others)
    for batch in pq.ParquetFile(stage.file(TAGS)).iter_batches():
        whole.add([row | {"reason": None} for row in batch.to_pylist()])
    with stage.file(REJECTS).open(encoding="utf-8", newline="") as file:
        whole.add([row | {"tags": None} for row in csv.DictReader(file)])
    return Prediction(
        results / PAGE,
        stage.counts["images/kept"],
        dict(whole.counts.most_common()),
        _told(scored, stage, told, about["review"], results),
    )


def check_prediction(images: str, top: int | None) -> list[str]:
    """Files of a folder to be tagged, looked at before any work starts."""
    if top is not None and top < 1:
        raise InputError(f"top {top}: expected at least one tag per image")
    listing = read_image_set("folder", None, place_of(images))
    return [entry.file for entry in listing.entries]


def _tags(scored: Scored, top: int | None) -> Stage:
    fitted = scored.fitted

    def work(out: Path) -> Result:
        return Result(write_tags(scored, top, out), {})

    recipe = recipe_of(
        "predict",
        __name__,
        inputs={"scores": scored.stage.digest},
        parameters={
            "classes": list(fitted.classes),
            "rate": rate_of(fitted.card),
            "thresholds": fitted.card.get("thresholds"),
            "top": top,
        },
    )
    return run_stage(recipe, work)


def write_tags(scored: Scored, top: int | None, out: Path) -> dict[str, int]:
    """Write tags, rejects and thresholds of a folder's scores.

    Returns:
        Counts images/read = images/kept + images/rejected, and images/untagged.

    """
    _, scores = scored.scores()
    decisions = decisions_of(scored.fitted, scores, top)
    kept = rejected = untagged = 0
    with (
        pq.ParquetWriter(out / TAGS, SCHEMA, compression="zstd") as parquet,
        (out / TABLE).open("w", encoding="utf-8", newline="") as tags_file,
        (out / REJECTS).open("w", encoding="utf-8", newline="") as rejects_file,
    ):
        tags = csv.writer(tags_file, lineterminator="\n")
        tags.writerow(["file", "rank", "label", "score"])
        rejects = csv.writer(rejects_file, lineterminator="\n")
        rejects.writerow(["file", "reason"])
        for some in scored.rows():
            rows = [_tagged(row, decisions) for row in some]
            bad = [[row["file"], row["reason"]] for row in rows if row["reason"] is not None]
            good = [row for row in rows if row["reason"] is None]
            rejects.writerows(bad)
            for row in good:
                tags.writerows(
                    [row["file"], rank, tag["label"], f"{tag['score']:.6f}"]
                    for rank, tag in enumerate(row["tags"], start=1)
                )
            parquet.write_table(pa.Table.from_pylist(good, schema=SCHEMA))
            kept, rejected = kept + len(good), rejected + len(bad)
            untagged += sum(not row["tags"] for row in good)
    by_class: dict[str, float] = {}
    if decisions.thresholds is not None:
        by_class = dict(zip(decisions.classes, decisions.thresholds.tolist(), strict=True))
    write_whole(out / THRESHOLDS, json.dumps(by_class, indent=2, ensure_ascii=False) + "\n")
    return {
        "images/read": kept + rejected,
        "images/kept": kept,
        "images/rejected": rejected,
        "images/untagged": untagged,
    }


def _tagged(row: Row, decisions: Decisions) -> dict[str, Any]:
    """A file's tags and the nearest one, or the reason why it has none."""
    scores, found = row["scores"], {"file": row["file"], "reason": row["reason"]}
    if scores is None:
        return found | {"tags": None, "nearest": None}
    scores = torch.as_tensor(scores)
    return found | {"tags": decisions.tags(scores), "nearest": decisions.nearest(scores)}


def _about(model: Model, fitted: Fitted) -> dict[str, Any]:
    """The model as the page names it."""
    card, version = fitted.card, model.version
    backbone = dict(card.get("backbone", {}))
    weights = backbone.get("pretrained") or ""
    return {
        "address": model.address,
        "alias": ", ".join(f"@{alias}" for alias in version.aliases) if version else "",
        "run": (version.run_id or "") if version else "",
        "method": fitted.method.name,
        "summary": str(card.get("summary", "")),
        "backbone": Path(str(backbone.get("model", ""))).name,
        "weights": Path(str(weights)).name,
        "random": not weights,
    }


def _review_command(folder: Path, model: Model) -> str:
    return shlex.join(["python", "-m", "flows.review", str(folder), "--model", model.address])


def _told(
    scored: Scored, stage: Stage, thresholds: str, review: str, results: Path
) -> tuple[str, ...]:
    counts, others = stage.counts, scored.listing.others
    told = [f"{counts['images/kept']:,} of {counts['images/read']:,} pictures read. {thresholds}"]
    if counts["images/rejected"]:
        where = results / REJECTS
        told.append(f"{counts['images/rejected']:,} cannot be read, with reasons: {where}")
    if others:
        kinds = passed_over_told(scored.listing.passed_over) or "hidden folders"
        where = results / PASSED_OVER
        told.append(f"{len(others):,} passed over, as no pictures ({kinds}): {where}")
    return (*told, f"check some by hand: {review}")
