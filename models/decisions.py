"""From which score on a class is said to be on an image: a rate that captions tell, per class.

Captions score higher than images do and lie further apart, so a cosine that divides captions
divides no images. What is carried over is how often one decides for a class: scores are
standardised by class, held-out captions choose the one threshold of highest F1, and on the images
at hand the threshold stands where as large a share of all scores lies above it. No image's label
is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from models.lazily import lazily
from models.metrics import best_thresholds

with lazily():
    from torch import Tensor

TOP: Final = 3
"""Classes that an image is tagged with where there are no thresholds."""
FEWEST_IMAGES: Final = 50
"""Fewer images do not tell where a class's scores lie."""
MOST_SCORES: Final = 2**25
"""Scores that thresholds are set by; of more images every second, third, ... is looked at."""


def decision_rate(scores: Tensor, labels: Tensor) -> float:
    """Share of the standardised scores [N, C] that lie above the one threshold of highest F1."""
    standard = _standardised(scores).reshape(-1, 1)
    best = best_thresholds(standard, labels.reshape(-1, 1).int())
    return float((standard > best).double().mean())


def image_thresholds(scores: Tensor, rate: float) -> Tensor:
    """[C] thresholds above which a share `rate` of scores [N, C], standardised by class, lies."""
    step = -(-scores.numel() // MOST_SCORES)
    scores = scores[::step]
    standard = _standardised(scores).flatten().sort().values
    place = min(max(round((1 - rate) * len(standard)), 1), len(standard))
    # between two scores: one that is a threshold itself could be rounded to either side
    after = standard[place] if place < len(standard) else standard[-1] + 1
    mean, spread = _moments(scores)
    return mean + (standard[place - 1] + after) / 2 * spread


@dataclass(frozen=True)
class Decisions:
    """Which classes an image with certain scores is tagged with."""

    classes: tuple[str, ...]
    """Names of the C classes."""
    thresholds: Tensor | None = None
    """[C] scores from which on a class is said to be there."""
    top: int | None = None
    """Tags per image; None for every class above its threshold, or 3 without thresholds."""

    def tags(self, scores: Tensor) -> list[dict[str, Any]]:
        """Classes of an image with scores [C], best first, as label and score."""
        order = scores.argsort(descending=True).tolist()
        if self.top is None and self.thresholds is not None:
            above = (scores > self.thresholds).tolist()
            chosen = [c for c in order if above[c]]
        else:
            chosen = order[: self.top or TOP]
        return [{"label": self.classes[c], "score": float(scores[c])} for c in chosen]

    def nearest(self, scores: Tensor) -> dict[str, Any]:
        """The class that comes nearest to its threshold, or goes furthest above it."""
        above = scores if self.thresholds is None else scores - self.thresholds
        c = int(above.argmax())
        return {"label": self.classes[c], "score": float(scores[c])}


def decisions_for(
    scores: Tensor, classes: tuple[str, ...], rate: float | None, top: int | None = None
) -> Decisions | None:
    """How images with scores [N, C] are tagged by a rate; None if they are too few, or it is none.

    `top` tags each where it is given: that asks for no threshold.
    """
    if top is not None:
        return Decisions(classes, top=top)
    if rate is None or len(scores) < FEWEST_IMAGES:
        return None
    return Decisions(classes, image_thresholds(scores, rate))


def _standardised(scores: Tensor) -> Tensor:
    mean, spread = _moments(scores)
    return (scores.double() - mean) / spread


def _moments(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [C] of scores [N, C], by class."""
    exact = scores.double()
    return exact.mean(dim=0), exact.std(dim=0, correction=0).clamp(min=1e-12)
