"""Evaluate stage: scores of an image set by branch, AP per class and mAP."""

import json
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import torch

from models.backbone import Backbone
from models.metrics import average_precisions, mean_average_precision
from models.prompts import class_embeddings
from models.scoring import dense_zero_shot_scores, global_scores, merged_scores
from models.tai_dpt import image_scores
from models.templates import PLAIN
from tasks.errors import InputError
from tasks.images import IMAGES, feature_batches
from tasks.store import write_whole
from tasks.vocabulary import Vocabulary

LOG = logging.getLogger("tai")
CODE: Final = ("tasks/evaluate.py", "models/scoring.py", "models/metrics.py", "models/tai_dpt.py")
BRANCHES: Final = ("global", "local", "merged")
SCORES: Final = "scores.parquet"
AP_TABLE: Final = "ap.csv"
METRICS: Final = "metrics.json"
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
    images: Path, scorer: Scorer, vocabulary: Vocabulary, out: Path
) -> tuple[dict[str, int], dict[str, Any]]:
    """Score the image features in `images`; write scores, an AP table and metrics to `out`.

    Returns:
        Counts, and the metrics mAP/<branch> (percent) and AP/<class> (percent, merged).

    Raises:
        InputError: no image shows any class of the vocabulary.

    """
    table = pq.read_table(images / IMAGES)
    index = {label: column for column, label in enumerate(vocabulary.classes)}
    labels = torch.zeros(table.num_rows, len(index), dtype=torch.int8)
    foreign: set[str] = set()
    for mark, column in ((-1, "ignored"), (1, "classes")):
        for row, names in enumerate(table[column].to_pylist()):
            foreign.update(name for name in names if name not in index)
            labels[row, [index[name] for name in names if name in index]] = mark
    if foreign:
        LOG.warning(
            "evaluate: shown, but no class of the vocabulary: %s", ", ".join(sorted(foreign)[:10])
        )
    if not (labels == 1).any():
        raise InputError(
            f"no image shows any class of vocabulary '{vocabulary.name}'; expected classes named "
            f"as the annotations' classes, such as {', '.join(sorted(foreign)[:5])}"
        )
    batches = [scorer(features) for features in feature_batches(images)]
    scores = {branch: torch.cat([batch[branch] for batch in batches]) for branch in BRANCHES}
    precisions = {branch: average_precisions(scores[branch], labels) for branch in BRANCHES}
    metrics = {f"mAP/{branch}": mean_average_precision(precisions[branch]) for branch in BRANCHES}
    positives = (labels == 1).sum(dim=0).tolist()
    per_class = dict(zip(vocabulary.classes, (100 * precisions["merged"]).tolist(), strict=True))
    metrics |= {f"AP/{label}": ap for label, ap in per_class.items() if not math.isnan(ap)}

    shown = [
        [vocabulary.classes[c] for c in (row == 1).nonzero().flatten().tolist()] for row in labels
    ]
    columns: dict[str, Any] = {
        "image_id": table["image_id"],
        "file": table["file"],
        "labels": pa.array(shown, pa.list_(pa.string())),
    }
    for branch in BRANCHES:
        flat = pa.array(scores[branch].numpy().reshape(-1))
        columns[branch] = pa.FixedSizeListArray.from_arrays(flat, len(index))
    pq.write_table(pa.table(columns), out / SCORES, compression="zstd")
    ap_table = {"class": list(vocabulary.classes), "positives": positives}
    for branch in BRANCHES:
        values = (100 * precisions[branch]).tolist()
        ap_table[f"AP/{branch}"] = [None if math.isnan(value) else value for value in values]
    pyarrow.csv.write_csv(pa.table(ap_table), out / AP_TABLE)
    write_whole(out / METRICS, json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")
    counts = {
        "images": table.num_rows,
        "classes/evaluated": sum(1 for count in positives if count),
        "classes/without_positive": sum(1 for count in positives if not count),
    }
    return counts, metrics
