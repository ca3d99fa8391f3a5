"""Marks stage: what a person's marks on a review's sample say of all its images.

shares.csv        precision and recall with 95 % intervals: overall, after the move, by class
thresholds.json   thresholds by class, moved by the marks
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from prefect import task
from prefect.cache_policies import NO_CACHE

from models.lazily import lazily
from tasks.results.review import Findings, Shares, findings, read_marks
from tasks.results.tags import THRESHOLDS
from tasks.workspace import Result, Stage, file_sha256, recipe_of, run_stage, write_whole

with lazily():
    from models.survey import Estimate

SHARES: Final = "shares.csv"
MARKS: Final = "marks.csv"
HEADER: Final = ("of", "share", "percent", "low", "high", "marks")
OVERALL: Final = "all classes"
AFTER: Final = "all classes, thresholds moved"


@task(name="marks", cache_policy=NO_CACHE, task_run_name="marks")
def marked(path: Path) -> Stage:
    """Shares and moved thresholds by the CSV of marks `path`."""
    review, places, marks = read_marks(path)
    found = findings(review, places, marks)

    def work(out: Path) -> Result:
        write_whole(out / MARKS, path.read_bytes())
        write_whole(out / SHARES, _table(found))
        moved = dict(zip(review.classes, found.moved.tolist(), strict=True))
        write_whole(out / THRESHOLDS, json.dumps(moved, indent=2, ensure_ascii=False) + "\n")
        counts = {
            "images/marked": found.images,
            "images/left": found.left,
            "marks/unknown": found.unknown,
            "images": int(review.card["images"]),
        }
        return Result(counts, figures_of(found))

    recipe = recipe_of(
        "marks",
        __name__,
        inputs={"marks": file_sha256(path)},
        parameters={"review": review.key},
    )
    return run_stage(recipe, work)


def figures_of(found: Findings) -> dict[str, float]:
    """Shares in percent with their bounds, by the names that MLflow has."""
    figures: dict[str, float] = {}
    for of, share, estimate in _shares(found):
        # MLflow groups by what stands before the slash
        name = {OVERALL: f"review/{share}", AFTER: f"review/{share}_moved"}.get(
            of, f"review_{share}/{of}"
        )
        if estimate:
            figures[name] = 100 * estimate.value
            figures |= {f"{name}_low": 100 * estimate.low, f"{name}_high": 100 * estimate.high}
    return figures


def _shares(found: Findings) -> Iterator[tuple[str, str, Estimate | None]]:
    rows: dict[str, Shares] = {OVERALL: found.overall, AFTER: found.after} | found.classes
    for of, shares in rows.items():
        yield of, "precision", shares.precision
        yield of, "recall", shares.recall


def _table(found: Findings) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(HEADER)
    for of, share, estimate in _shares(found):
        values: dict[str, Any] = asdict(estimate) if estimate else {}
        bounds = ("value", "low", "high")
        numbers = [f"{100 * values[name]:.2f}" if values else "" for name in bounds]
        writer.writerow([of, share, *numbers, values.get("marks", 0)])
    return file.getvalue()
