"""Thresholds stage: from which score on a class is said to be on an image, learned from captions.

Captions score higher than images do and lie further apart, so a cosine that divides captions
divides no images. What is carried over is how often one decides for a class: scores are
standardised by class, held-out captions choose the one threshold of highest F1, and on images the
threshold stands where as large a share of all scores lies above it. No image's label is needed.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow.parquet as pq
import torch
from prefect import task
from prefect.cache_policies import NO_CACHE

from models.method import Method
from models.metrics import best_thresholds, f1_scores
from tasks.backbone.loading import identity_of, load
from tasks.captions.choose import templates_in
from tasks.images.labelled import label_matrix
from tasks.methods.fit import Lesson, open_lesson, split_captions
from tasks.methods.state import read_state
from tasks.results.evaluate import SCORES, scores_of
from tasks.workspace import Result, Stage, digests_of, recipe_of, run_stage, write_whole

if TYPE_CHECKING:
    from models.examples import Examples
    from models.method import State
    from tasks.labels.vocabulary import Vocabulary
    from tasks.profile import Profile
    from tasks.results.outcome import Outcome

THRESHOLDS: Final = "thresholds.json"
CAPTIONS_PER_BATCH: Final = 512


@task(name="thresholds", cache_policy=NO_CACHE)
def choose_thresholds(profile: Profile, vocabulary: Vocabulary, outcome: Outcome) -> Outcome:
    """The outcome with thresholds on the first image set, where captions were held out."""
    name = profile.headline_method
    method, fitted, choice = profile.method(name), outcome.fitted[name], outcome.choice
    if choice is None or not fitted.counts.get("captions/held_out") or not scores_captions(method):
        return outcome
    evaluation = outcome.evaluations[name][profile.images[0].name]
    lesson = Lesson.of_captions(choice, method.reads, outcome.encoded(method.reads))

    def work(out: Path) -> Result:
        captions = open_lesson(profile, vocabulary, lesson)
        templates = templates_in(choice)
        _, rows = split_captions(len(captions), templates, profile.captions, profile.seed)
        device = load(profile).backbone.device
        state = {key: each.to(device) for key, each in read_state(fitted.folder).items()}
        held_out = caption_scores(captions, rows, method, state, device)
        return Result(*write_thresholds(held_out, evaluation, vocabulary.classes, out))

    recipe = recipe_of(
        "thresholds",
        __name__,
        type(method).__module__,
        inputs={
            "choice": choice.digest,
            "features": digests_of(lesson.stages),
            "fitted": fitted.digest,
            "evaluation": evaluation.digest,
            "backbone": identity_of(profile),
        },
        parameters={
            "method": name,
            "settings": method.settings.model_dump(mode="json"),
            "held_out": profile.captions.held_out,
            "seed": profile.seed,
        },
    )
    return replace(outcome, thresholds=run_stage(recipe, work))


def scores_captions(method: Method) -> bool:
    """Whether a method scores captions, by which thresholds can be chosen."""
    return method.owner("score_captions") is not Method


@torch.inference_mode()
def caption_scores(
    captions: Examples[Any], rows: torch.Tensor, method: Method, state: State, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Merged scores [N, C] and labels [N, C] of the captions `rows`."""
    scores, labels = [], []
    for some in rows.split(CAPTIONS_PER_BATCH):
        batch = captions.batch(some, device)
        found = method.score_captions(state, batch)
        if found is None:
            raise ValueError(f"{method.name} scores no captions")
        scores.append(found["merged"].cpu())
        labels.append(batch.labels.cpu())
    return torch.cat(scores), torch.cat(labels)


def decision_rate(scores: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of the standardised scores [N, C] that lie above the one threshold of highest F1."""
    standard = _standardised(scores).reshape(-1, 1)
    best = best_thresholds(standard, labels.reshape(-1, 1).int())
    return float((standard > best).double().mean())


def image_thresholds(scores: torch.Tensor, rate: float) -> torch.Tensor:
    """[C] thresholds above which a share `rate` of scores [N, C], standardised by class, lies."""
    standard = _standardised(scores).flatten().sort().values
    place = min(max(round((1 - rate) * len(standard)), 1), len(standard))
    # between two scores: one that is a threshold itself could be rounded to either side
    after = standard[place] if place < len(standard) else standard[-1] + 1
    mean, spread = _moments(scores)
    return mean + (standard[place - 1] + after) / 2 * spread


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
