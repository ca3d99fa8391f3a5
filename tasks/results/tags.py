"""Tag stage: the tags of an image set by the headline method, by thresholds for its own images.

tags.parquet      file, tags (label and score, best first), nearest (the tag to guess at)
tags.csv          a row per file and tag: file, rank, label, score
thresholds.json   threshold by class; none where the images are too few to set any
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE

from models.decisions import Decisions, decisions_for
from models.metrics import f1_scores
from tasks.images.labelled import label_matrix
from tasks.results.rate import RATE
from tasks.results.score import SCORES, scores_of
from tasks.workspace import Result, Stage, recipe_of, run_stage, write_whole

if TYPE_CHECKING:
    from tasks.labels.vocabulary import Vocabulary
    from tasks.profile import Profile
    from tasks.results.outcome import Outcome
    from tasks.settings import ImageSet

TAGS: Final = "tags.parquet"
TABLE: Final = "tags.csv"
THRESHOLDS: Final = "thresholds.json"
TAG: Final = pa.struct({"label": pa.string(), "score": pa.float32()})
SCHEMA: Final = pa.schema({"file": pa.string(), "tags": pa.list_(TAG), "nearest": TAG})


@task(name="tag", cache_policy=NO_CACHE, task_run_name="tag {image_set.name}")
def tag_images(
    profile: Profile, vocabulary: Vocabulary, image_set: ImageSet, outcome: Outcome
) -> Stage:
    """Tags of one image set; where its labels are known, how good they are."""
    scores = outcome.scored(profile.headline_method, image_set.name)
    rate = outcome.rate.figures[RATE] if outcome.rate else None
    classes, is_known = vocabulary.classes, image_set.labels_known

    def work(out: Path) -> Result:
        return Result(*write_tags(scores, classes, rate, out, labels_known=is_known))

    recipe = recipe_of(
        "tag",
        __name__,
        inputs={"scores": scores.digest},
        parameters={
            "classes": list(classes),
            "rate": rate,
            "labels_known": is_known,
        },
    )
    return run_stage(recipe, work)


def write_tags(
    scored: Stage, classes: tuple[str, ...], rate: float | None, out: Path, *, labels_known: bool
) -> tuple[dict[str, int], dict[str, Any]]:
    """Write tags and thresholds of a finished evaluate or score stage's images.

    Returns:
        Counts, and where labels are known, CF1/threshold and OF1/threshold in percent.

    """
    scores = scores_of(scored)
    listed = pq.read_table(scored.file(SCORES), columns=["file", "classes", "ignored"])
    found = decisions_for(scores, classes, rate)
    decisions = found or Decisions(classes)
    rows = [
        {"file": file, "tags": decisions.tags(of), "nearest": decisions.nearest(of)}
        for file, of in zip(listed["file"].to_pylist(), scores, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), out / TAGS, compression="zstd")
    write_whole(out / TABLE, tags_csv(rows))
    figures: dict[str, Any] = {}
    by_class: dict[str, float] = {}
    if found and found.thresholds is not None:
        by_class = dict(zip(classes, found.thresholds.tolist(), strict=True))
        if labels_known:
            quality = f1_scores(scores > found.thresholds, label_matrix(listed, classes))
            figures = {"CF1/threshold": quality.per_class, "OF1/threshold": quality.overall}
    write_whole(out / THRESHOLDS, json.dumps(by_class, indent=2, ensure_ascii=False) + "\n")
    counts = {
        "images": len(rows),
        "images/untagged": sum(not row["tags"] for row in rows),
        "tags": sum(len(row["tags"]) for row in rows),
    }
    return counts, figures


def thresholds_of(tags: Stage) -> dict[str, float]:
    """Thresholds by class of a finished stage; empty where its images were too few."""
    return dict(json.loads(tags.file(THRESHOLDS).read_text(encoding="utf-8")))


def tags_csv(rows: Sequence[dict[str, Any]]) -> str:
    """The table of tags, best first."""
    tags = [
        [row["file"], rank, tag["label"], f"{tag['score']:.6f}"]
        for row in rows
        for rank, tag in enumerate(row["tags"], start=1)
    ]
    return csv_text(["file", "rank", "label", "score"], tags)


def csv_text(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows as CSV."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return file.getvalue()
