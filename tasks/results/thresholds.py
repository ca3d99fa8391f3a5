"""Thresholds stage: from which score on a class is said to be on an image, learned from captions.

Captions score higher than images do and lie further apart, so a cosine that divides captions
divides no images. What is carried over is how often one decides for a class: scores are
standardised by class, held-out captions choose the one threshold of highest F1, and on images the
threshold stands where as large a share of all scores lies above it. No image's label is needed.
"""

import json
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq
import torch

from models.backbone import Backbone
from models.metrics import best_thresholds, f1_scores
from models.scoring import global_scores, merged_scores, packed_local_scores
from tasks.captions.encode import stores_projection
from tasks.captions.features import Captions
from tasks.results.evaluate import SCORES, label_matrix, scores_of
from tasks.workspace import Stage, write_whole

THRESHOLDS: Final = "thresholds.json"
CAPTIONS_PER_BATCH: Final = 512


@torch.inference_mode()
def caption_scores(
    captions: Captions, rows: torch.Tensor, prompts: torch.Tensor, backbone: Backbone, kappa: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Merged scores [N, C] and labels [N, C] of the captions `rows`."""
    projection = None if stores_projection(backbone) else backbone.projection
    scores, labels = [], []
    prompts = prompts.to(backbone.device)
    for some in rows.split(CAPTIONS_PER_BATCH):
        batch = captions.batch(some, backbone.device)
        of_global = global_scores(batch.global_, prompts[0])
        of_local = packed_local_scores(batch.tokens, prompts[1], projection, kappa)
        scores.append(merged_scores(of_global, of_local).cpu())
        labels.append(batch.labels.cpu())
    return torch.cat(scores), torch.cat(labels)


def decision_rate(scores: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of the standardised scores [N, C] that lie above the one threshold of highest F1."""
    standard = _standardised(scores).reshape(-1, 1)
    best = best_thresholds(standard, labels.reshape(-1, 1).int())
    return float((standard > best).double().mean())


def image_thresholds(scores: torch.Tensor, rate: float) -> torch.Tensor:
    """[C] thresholds above which a share `rate` of scores [N, C], standardised by class, lies."""
    standard = _standardised(scores).flatten()
    place = min(max(round((1 - rate) * len(standard)), 1), len(standard))
    mean, spread = _moments(scores)
    return mean + standard.kthvalue(place).values * spread


def write_thresholds(
    held_out: tuple[torch.Tensor, torch.Tensor],
    evaluation: Stage,
    classes: tuple[str, ...],
    out: Path,
) -> tuple[dict[str, int], dict[str, Any]]:
    """Write thresholds on images by class; how good they are is measured with the true labels.

    Args:
        held_out: merged scores and labels of held-out captions, both [N, C].
        evaluation: scores of the image set on which the thresholds are set.
        classes: names of the C classes.
        out: folder to write thresholds.json to.

    Returns:
        Counts and the metrics CF1/threshold and OF1/threshold in percent.

    """
    scores = scores_of(evaluation)
    found = image_thresholds(scores, decision_rate(*held_out))
    listed = pq.read_table(evaluation.file(SCORES), columns=["classes", "ignored"])
    quality = f1_scores(scores > found, label_matrix(listed, classes))
    by_class = dict(zip(classes, found.tolist(), strict=True))
    write_whole(out / THRESHOLDS, json.dumps(by_class, indent=2, ensure_ascii=False) + "\n")
    counts = {"captions/held_out": len(held_out[0])}
    return counts, {"CF1/threshold": quality.per_class, "OF1/threshold": quality.overall}


def _standardised(scores: torch.Tensor) -> torch.Tensor:
    mean, spread = _moments(scores)
    return (scores.double() - mean) / spread


def _moments(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation [C] of scores [N, C], by class."""
    exact = scores.double()
    return exact.mean(dim=0), exact.std(dim=0, correction=0).clamp(min=1e-12)
