"""Evaluate stage: scores of an image set by branch, AP per class and mAP."""

from __future__ import annotations

import csv
import json
import logging
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE

from models.lazily import lazily
from models.metrics import (
    F1,
    LARGEST_WEIGHTS,
    average_precisions,
    bootstrap_maps,
    decision_counts,
    f1_of_counts,
    interval,
    mean_average_precision,
    resample_weights,
    top_decisions,
    weighted_average_precisions,
)
from tasks.errors import InputError
from tasks.images.features import StoredFeatures, open_features
from tasks.images.image_sets import ENTRIES
from tasks.images.labelled import label_matrix
from tasks.images.narrow import EVERY
from tasks.results.score import (
    SCORES,
    Scorer,
    Scoring,
    blocks,
    branch_scores,
    scores_of,
    split_rows,
    write_rows,
)
from tasks.workspace import Result, Stage, run_stage, write_whole

with lazily():
    import torch

if TYPE_CHECKING:
    from tasks.labels.vocabulary import Vocabulary
    from tasks.profile import Profile
    from tasks.settings import ImageSet

LOG = logging.getLogger("tai")
AP_TABLE: Final = "ap.csv"
METRICS: Final = "metrics.json"
TOP: Final = 3
"""Classes that an image is tagged with where decisions are asked for."""
RESAMPLES: Final = 1000
FEWEST_RESAMPLES: Final = 20
RESAMPLED_SCORES: Final = 2**33


@task(name="evaluate", cache_policy=NO_CACHE, task_run_name="evaluate {name} {image_set.name}")
def evaluate(
    profile: Profile,
    vocabulary: Vocabulary,
    name: str,
    image_set: ImageSet,
    listed: Stage,
    images: Stage,
    fitted: Stage,
) -> Stage:
    """Scores and mAP of a fitted method on one image set."""
    scoring = Scoring(profile.method(name), image_set, vocabulary, listed, images, fitted)

    def work(out: Path) -> Result:
        every = listed.file(EVERY)
        return Result(
            *write_scores(
                listed.file(ENTRIES),
                open_features(images),
                scoring.scorer(),
                vocabulary,
                out,
                every if every.is_file() else None,
            )
        )

    return run_stage(scoring.recipe("evaluate", __name__), work)


def write_scores(
    entries: Path,
    images: StoredFeatures,
    scorer: Scorer,
    vocabulary: Vocabulary,
    out: Path,
    every: Path | None = None,
) -> tuple[dict[str, int], dict[str, Any]]:
    """Score the images in `entries` by their features in `images`; write scores and metrics.

    An image that is missing or broken has no score. The mAP is that over the others, and where
    there is any, `mAP_missing_last` is the mAP with such images ranked last in every class. A class
    of which an image shows but ignored objects (VOC's difficult ones) counts as neither there; the
    published TaI-DPT figures take it for not shown, which `mAP_ignored_negative` tells. Where
    `entries` are some of a set's images (those that show a novel class), `every` lists all, and
    `mAP_all_images` is the mAP on them.

    Scores lie in memory-mapped files while they are needed, and are read by blocks of images or of
    classes, so that thousands of classes and hundreds of thousands of images fit.

    Returns:
        Counts (images = images/scored + images/without_score) and metrics in percent: mAP/<branch>
        with its 95 % interval, AP/<class> (merged), CF1/top3 and OF1/top3 (merged), and how many
        of all classes an image shows: mAP is the mean over those.

    Raises:
        InputError: no image shows any class of the vocabulary.

    """
    listed, classes = pq.read_table(entries), vocabulary.classes
    scored, unscored = split_rows(listed, images.files)
    positives = _positives(scored, classes)
    if not any(positives):
        raise InputError(
            "of the images that can be read, none shows any class of vocabulary "
            f"'{vocabulary.name}'"
        )
    stored = np.array(images.files)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        whole = branch_scores(images, scorer, (len(classes), len(stored)), Path(folder))
        is_listed = torch.from_numpy(np.isin(stored, listed["file"].to_numpy()))
        scores = whole
        if not is_listed.all():
            scores = {branch: of_branch[:, is_listed] for branch, of_branch in whole.items()}
        write_rows(scored, scores, out)
        top = _top_f1(scores["merged"], scored, classes)
        precisions = {branch: _precisions(scores[branch], scored, classes) for branch in scores}
        metrics = {f"mAP/{branch}": mean_average_precision(precisions[branch]) for branch in scores}
        has_ignored = bool(pc.any(pc.greater(pc.list_value_length(scored["ignored"]), 0)).as_py())
        for branch, of_branch in scores.items():
            maps = _bootstrap(of_branch, scored, classes)
            low, high = interval(maps, metrics[f"mAP/{branch}"])
            metrics |= {f"mAP_low/{branch}": low, f"mAP_high/{branch}": high}
            if unscored.num_rows:
                full = _precisions(of_branch, scored, classes, last=unscored)
                metrics[f"mAP_missing_last/{branch}"] = mean_average_precision(full)
            if has_ignored:
                strict = _precisions(of_branch, scored, classes, ignored_is_negative=True)
                metrics[f"mAP_ignored_negative/{branch}"] = mean_average_precision(strict)
            if every:
                table = pq.read_table(every)
                table = table.filter(pa.array(np.isin(table["file"].to_numpy(), stored)))
                of_all = _precisions(whole[branch], table, classes)
                metrics[f"mAP_all_images/{branch}"] = mean_average_precision(of_all)
    metrics |= {f"CF1/top{TOP}": top.per_class, f"OF1/top{TOP}": top.overall}
    per_class = zip(classes, (100 * precisions["merged"]).tolist(), strict=True)
    metrics |= {f"AP/{label}": ap for label, ap in per_class if not math.isnan(ap)}

    evaluated = sum(count > 0 for count in positives)
    metrics |= {"classes/evaluated": evaluated, "classes/all": len(classes)}
    _write_ap_table(classes, positives, precisions, out)
    write_whole(out / METRICS, json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")
    counts = {
        "images": listed.num_rows,
        "images/scored": scored.num_rows,
        "images/without_score": unscored.num_rows,
        "classes/evaluated": evaluated,
        "classes/without_positive": sum(count == 0 for count in positives),
    }
    return counts, metrics


def classes_told(figures: Mapping[str, float]) -> str:
    """Classes that an mAP is the mean over, of all: `3 of 6`; empty if the figures tell none."""
    evaluated, every = (figures.get(f"classes/{which}") for which in ("evaluated", "all"))
    return "" if evaluated is None or every is None else f"{evaluated:,.0f} of {every:,.0f}"


def ap_rows(evaluation: Stage) -> list[dict[str, str]]:
    """The AP table of a finished stage: a row per class, in the vocabulary's order."""
    with evaluation.file(AP_TABLE).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def paired_maps(evaluations: Sequence[Stage]) -> list[torch.Tensor]:
    """Bootstrap mAPs [R], percent, of finished stages on the same images and resamples of them."""
    first = evaluations[0]
    scored = pq.read_table(first.file(SCORES), columns=["classes", "ignored"])
    labels = label_matrix(scored, [row["class"] for row in ap_rows(first)])
    matrices = {str(number): scores_of(stage) for number, stage in enumerate(evaluations)}
    return list(bootstrap_maps(matrices, labels).values())


def _top_f1(scores: torch.Tensor, scored: pa.Table, classes: Sequence[str]) -> F1:
    """F1 of tagging each image with its highest of scores [C, N]."""
    counts = torch.zeros(3, len(classes), dtype=torch.float64)
    for block in blocks(scored.num_rows, len(classes)):
        rows = scored.slice(block.start, block.stop - block.start)
        decided = top_decisions(scores[:, block].T.contiguous(), TOP)
        counts += decision_counts(decided, label_matrix(rows, classes))
    return f1_of_counts(counts)


def _precisions(
    scores: torch.Tensor,
    scored: pa.Table,
    classes: Sequence[str],
    last: pa.Table | None = None,
    *,
    ignored_is_negative: bool = False,
) -> torch.Tensor:
    """AP [C] of scores [C, N]; images in `last` have none and rank behind all others."""
    listed = pa.concat_tables([scored, last]) if last else scored
    found = []
    for block in blocks(len(classes), listed.num_rows):
        of_block = scores[block]
        missing = (len(of_block), listed.num_rows - scored.num_rows)
        ranked = torch.cat([of_block, of_block.new_full(missing, float(of_block.min()) - 1)], dim=1)
        labels = label_matrix(listed, classes[block])
        labels = labels.clamp(min=0) if ignored_is_negative else labels
        found.append(average_precisions(ranked.T, labels))
    return torch.cat(found)


def _bootstrap(scores: torch.Tensor, scored: pa.Table, classes: Sequence[str]) -> torch.Tensor:
    """MAP [R] in percent of `models.metrics.bootstrap_maps`, by blocks of classes.

    A set of more than some millions of scores is resampled less than 1,000 times.
    """
    generator = torch.Generator().manual_seed(0)
    images = scored.num_rows
    resamples = min(RESAMPLES, max(FEWEST_RESAMPLES, RESAMPLED_SCORES // scores.numel()))
    at_once = max(1, LARGEST_WEIGHTS // images)
    maps = []
    for start in range(0, resamples, at_once):
        weights = resample_weights(images, min(at_once, resamples - start), generator)
        precisions = [
            weighted_average_precisions(
                scores[block].T, label_matrix(scored, classes[block]), weights
            )
            for block in blocks(len(classes), images)
        ]
        maps.append(100 * torch.cat(precisions, dim=1).nanmean(dim=1))
    return torch.cat(maps)


def _positives(scored: pa.Table, classes: Sequence[str]) -> list[int]:
    """How many images show each class."""
    counted = pc.value_counts(scored["classes"].combine_chunks().flatten()).to_pylist()
    counts = {each["values"]: each["counts"] for each in counted}
    return [counts.get(label, 0) for label in classes]


def _write_ap_table(
    classes: Sequence[str],
    positives: Sequence[int],
    precisions: Mapping[str, torch.Tensor],
    out: Path,
) -> None:
    """One row per class: images that show it, and its AP in percent by branch."""
    columns: dict[str, Any] = {"class": list(classes), "positives": list(positives)}
    for branch in precisions:
        values = (100 * precisions[branch]).tolist()
        columns[f"AP/{branch}"] = [None if math.isnan(value) else value for value in values]
    pyarrow.csv.write_csv(pa.table(columns), out / AP_TABLE)
