"""Evaluate stage: scores of an image set by branch, AP per class and mAP."""

import csv
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import torch

from models.backbone import Backbone
from models.metrics import (
    average_precisions,
    bootstrap_maps,
    f1_scores,
    interval,
    mean_average_precision,
    top_decisions,
)
from models.prompts import class_embeddings
from models.scoring import dense_zero_shot_scores, global_scores, merged_scores
from models.tai_dpt import image_scores
from models.templates import PLAIN
from tasks.errors import InputError
from tasks.images import IMAGES, feature_batches
from tasks.store import Stage, write_whole
from tasks.vocabulary import Vocabulary

LOG = logging.getLogger("tai")
CODE: Final = ("tasks/evaluate.py", "models/scoring.py", "models/metrics.py", "models/tai_dpt.py")
BRANCHES: Final = ("global", "local", "merged")
SCORES: Final = "scores.parquet"
AP_TABLE: Final = "ap.csv"
METRICS: Final = "metrics.json"
TOP: Final = 3
"""Classes that an image is tagged with where decisions are asked for."""
Scorer = Callable[[Mapping[str, torch.Tensor]], dict[str, torch.Tensor]]


def zero_shot_scorer(backbone: Backbone, vocabulary: Vocabulary) -> Scorer:
    """Zero-shot CLIP, global and dense (METHODS 2)."""
    embeddings = class_embeddings(backbone, vocabulary.prompt_names, [PLAIN.format]).cpu()
    scale = backbone.logit_scale

    def score(features: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        of_global = global_scores(features["pooled"].float(), embeddings)
        of_local = dense_zero_shot_scores(features["dense"].float(), embeddings, scale)
        return {
            "global": of_global,
            "local": of_local,
            "merged": merged_scores(of_global, of_local),
        }

    return score


def prompt_scorer(prompts: torch.Tensor, kappa: float) -> Scorer:
    """TaI-DPT's prompts [2, C, d] (METHODS 1)."""

    def score(features: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        of_global, dense = features["pooled_plain"].float(), features["dense"].float()
        return image_scores(of_global, dense, prompts, kappa)

    return score


def write_scores(
    entries: Path, images: Path, scorer: Scorer, vocabulary: Vocabulary, out: Path
) -> tuple[dict[str, int], dict[str, Any]]:
    """Score the images in `entries` by their features in `images`; write scores and metrics.

    An image that is missing or broken has no score. The mAP is that over the others, and where
    there is any, `mAP_missing_last` is the mAP with such images ranked last in every class.

    Returns:
        Counts (images = images/scored + images/without_score) and metrics in percent: mAP/<branch>
        with its 95 % interval, AP/<class> (merged), CF1/top3 and OF1/top3 (merged).

    Raises:
        InputError: no image shows any class of the vocabulary.

    """
    listed = pq.read_table(entries)
    labels = _label_matrix(listed, vocabulary)
    # features come in the set's order, without the images that could not be read
    scored = np.isin(listed["file"].to_numpy(), pq.read_table(images / IMAGES)["file"].to_numpy())
    missing = len(scored) - int(scored.sum())
    batches = [scorer(features) for features in feature_batches(images)]
    scores = {branch: torch.cat([batch[branch] for batch in batches]) for branch in BRANCHES}
    of_scored = labels[torch.from_numpy(scored)]

    precisions = {branch: average_precisions(scores[branch], of_scored) for branch in BRANCHES}
    metrics = _map_metrics(scores, of_scored, precisions)
    if missing:
        for branch, known in scores.items():
            full = known.new_full(labels.shape, float(known.min()) - 1)
            full[torch.from_numpy(scored)] = known
            ranked_last = mean_average_precision(average_precisions(full, labels))
            metrics[f"mAP_missing_last/{branch}"] = ranked_last
    top = f1_scores(top_decisions(scores["merged"], TOP), of_scored)
    metrics |= {f"CF1/top{TOP}": top.per_class, f"OF1/top{TOP}": top.overall}
    per_class = zip(vocabulary.classes, (100 * precisions["merged"]).tolist(), strict=True)
    metrics |= {f"AP/{label}": ap for label, ap in per_class if not math.isnan(ap)}

    _write_scores(listed.filter(pa.array(scored)), scores, out)
    positives = (of_scored == 1).sum(dim=0)
    _write_ap_table(vocabulary.classes, positives, precisions, out)
    write_whole(out / METRICS, json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")
    counts = {
        "images": len(scored),
        "images/scored": len(scored) - missing,
        "images/without_score": missing,
        "classes/evaluated": int((positives > 0).sum()),
        "classes/without_positive": int((positives == 0).sum()),
    }
    return counts, metrics


def label_matrix(listed: pa.Table, classes: Sequence[str]) -> torch.Tensor:
    """[N, C] int8 of a table with `classes` and `ignored`: 1 shown, 0 not shown, -1 ignored.

    Names that are no class are left out.
    """
    index = {label: column for column, label in enumerate(classes)}
    labels = torch.zeros(listed.num_rows, len(index), dtype=torch.int8)
    for mark, column in ((-1, "ignored"), (1, "classes")):
        for row, names in enumerate(listed[column].to_pylist()):
            labels[row, [index[name] for name in names if name in index]] = mark
    return labels


def scores_of(evaluation: Stage) -> torch.Tensor:
    """[N, C] merged scores of a finished stage, a row per scored image."""
    column = pq.read_table(evaluation.file(SCORES), columns=["merged"])["merged"].combine_chunks()
    values = np.array(column.flatten().to_numpy())
    return torch.from_numpy(values.reshape(len(column), -1))


def ap_rows(evaluation: Stage) -> list[dict[str, str]]:
    """The AP table of a finished stage: a row per class, in the vocabulary's order."""
    with evaluation.file(AP_TABLE).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _label_matrix(listed: pa.Table, vocabulary: Vocabulary) -> torch.Tensor:
    """`label_matrix`, once it is sure that the set shows some of the classes."""
    labels = label_matrix(listed, vocabulary.classes)
    shown = set(pc.unique(listed["classes"].combine_chunks().flatten()).to_pylist())
    foreign = sorted(shown - set(vocabulary.classes))
    if foreign:
        LOG.warning("evaluate: shown, but no class of the vocabulary: %s", ", ".join(foreign[:10]))
    if not (labels == 1).any():
        raise InputError(
            f"no image shows any class of vocabulary '{vocabulary.name}'; expected classes named "
            f"as the annotations' classes, such as {', '.join(foreign[:5])}"
        )
    return labels


def _map_metrics(
    scores: Mapping[str, torch.Tensor],
    labels: torch.Tensor,
    precisions: Mapping[str, torch.Tensor],
) -> dict[str, float]:
    """MAP of each branch with the ends of its 95 % bootstrap interval."""
    metrics = {f"mAP/{branch}": mean_average_precision(precisions[branch]) for branch in BRANCHES}
    for branch, maps in bootstrap_maps(scores, labels).items():
        metrics[f"mAP_low/{branch}"], metrics[f"mAP_high/{branch}"] = interval(maps)
    return metrics


def _write_scores(scored: pa.Table, scores: Mapping[str, torch.Tensor], out: Path) -> None:
    """One row per image with a score: what it shows and its scores [C] by branch."""
    for branch in BRANCHES:
        flat = pa.array(scores[branch].numpy().reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(flat, scores[branch].shape[1])
        scored = scored.append_column(branch, column)
    pq.write_table(scored, out / SCORES, compression="zstd")


def _write_ap_table(
    classes: Sequence[str],
    positives: torch.Tensor,
    precisions: Mapping[str, torch.Tensor],
    out: Path,
) -> None:
    """One row per class: images that show it, and its AP in percent by branch."""
    columns: dict[str, Any] = {"class": list(classes), "positives": positives.tolist()}
    for branch in BRANCHES:
        values = (100 * precisions[branch]).tolist()
        columns[f"AP/{branch}"] = [None if math.isnan(value) else value for value in values]
    pyarrow.csv.write_csv(pa.table(columns), out / AP_TABLE)
