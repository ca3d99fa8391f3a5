"""Review stage: a page on which a person checks a sample of tags, and the sample itself.

The page is one file that loads and sends nothing; the one script that it may run is told by hash.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup
from prefect import task
from prefect.cache_policies import NO_CACHE

from models.lazily import lazily
from tasks import pages
from tasks.pages.heatmaps import thumbnail
from tasks.results.review import Tagged, draw, write_sample
from tasks.workspace import Result, Stage, digest_of, recipe_of, run_stage, write_whole

with lazily():
    import torch

    from models.survey import Sample

PAGE: Final = "index.html"
TEMPLATE: Final = "review.html"
SCRIPT: Final = "templates/review.js"
SIDE: Final = 640
LIKELIEST: Final = 40
COMMAND: Final = "python -m flows.review --marks marks.csv"


@task(name="review", cache_policy=NO_CACHE, task_run_name="review {found.name}")
def review(found: Tagged, count: int, seed: int) -> Stage:
    """The page to check `count` images on, drawn by `seed`."""
    sample = draw(found, count, seed)
    recipe = recipe_of(
        "review",
        __name__,
        inputs={
            "files": digest_of(found.files),
            "scores": _sha256(found.scores),
            "thresholds": digest_of([_sha256(found.thresholds), _sha256(found.given)]),
        },
        parameters={
            "name": found.name,
            "folder": str(found.folder),
            "classes": list(found.classes),
            "count": count,
            "seed": seed,
            "run": found.run_id,
            "model": found.model,
        },
    )

    def work(out: Path) -> Result:
        write_sample(found, sample, out)
        counts = {"images": len(found.files), "images/drawn": len(sample.rows)}
        return Result(counts | write_page(found, sample, recipe.key, out), {})

    return run_stage(recipe, work)


def write_page(found: Tagged, sample: Sample, key: str, out: Path) -> dict[str, int]:
    """Write the page for the review `key`; returns how many images it shows."""
    shown = [
        _image(found, row, stratum, weight)
        for row, stratum, weight in zip(
            sample.rows.tolist(), sample.strata.tolist(), sample.weights().tolist(), strict=True
        )
    ]
    readable = [image for image in shown if image["picture"]]
    script = (Path(__file__).parent / SCRIPT).read_text(encoding="utf-8")
    page = pages.render(
        TEMPLATE,
        name=found.name,
        images=len(found.files),
        count=len(readable),
        unseen=len(shown) - len(readable),
        command=COMMAND,
        data={"review": key, "classes": list(found.classes), "images": readable},
        # S704: the script is ours, it holds nothing from outside
        script=Markup(script),  # noqa: S704
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    write_whole(out / PAGE, page)
    return {"images/shown": len(readable)}


def _sha256(numbers: torch.Tensor) -> str:
    return hashlib.sha256(numbers.contiguous().numpy().tobytes()).hexdigest()


def _image(found: Tagged, row: int, stratum: int, weight: float) -> dict[str, Any]:
    order = found.scores[row].argsort(descending=True).tolist()
    return {
        "file": found.files[row],
        "picture": thumbnail(found.folder / found.files[row], side=SIDE),
        "tags": [c for c in order if found.given[row, c]],
        "order": order[:LIKELIEST],
        "stratum": stratum,
        "weight": round(weight, 6),
    }
