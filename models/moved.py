"""Thresholds moved by a few labelled images, without trusting a class's few marks too much.

All classes are first moved together, in units of each one's spread of scores, to the highest F1 of
all decisions; then each on its own, its marks joined by the mean class's, which count as `PRIOR`
positives: a class with few marks follows the others, one with many its own.
"""

from typing import Final

import torch
from torch import Tensor

PRIOR: Final = 10.0
STEPS: Final = torch.arange(-60, 61, dtype=torch.float64) / 20
"""Moves to try, in standard deviations of a class's scores."""


def moved_thresholds(
    scores: Tensor, marks: Tensor, weights: Tensor, thresholds: Tensor, spread: Tensor
) -> Tensor:
    """[C] thresholds; those given where no mark speaks for a move.

    Args:
        scores: [m, C] of the marked images.
        marks: [m, C] 1, 0 or -1 (not known).
        weights: [m] how many images each one stands for.
        thresholds: [C] to start from.
        spread: [C] standard deviation of the scores of all images.

    """
    counts = _counts(scores, marks, weights / weights.mean(), thresholds, spread)
    pooled = counts.sum(dim=1)
    positives = float(counts[2, :, 0].sum())
    if not positives:
        return thresholds
    together = _best(_f1(pooled), around=0.0)
    prior = pooled[:, None] * (PRIOR / positives)
    alone = [_best(of_class, around=together) for of_class in _f1(counts + prior)]
    return thresholds + torch.tensor(alone).to(thresholds) * spread.to(thresholds)


def _counts(
    scores: Tensor, marks: Tensor, weights: Tensor, thresholds: Tensor, spread: Tensor
) -> Tensor:
    """[3, C, S] right decisions, decisions and positives for each step."""
    known, shown = marks >= 0, marks == 1
    found = []
    for step in STEPS:
        decided = (scores > thresholds + step.to(scores) * spread) & known
        found.append(
            torch.stack(
                [(each * weights[:, None]).sum(dim=0) for each in (decided & shown, decided, shown)]
            )
        )
    return torch.stack(found, dim=-1).double()


def _f1(counts: Tensor) -> Tensor:
    right, decided, positives = counts
    f1: Tensor = 2 * right / (decided + positives).clamp(min=1e-12)
    return f1


def _best(f1: Tensor, around: float) -> float:
    """The step of highest F1 [S]; among equals the nearest to `around`."""
    best = (f1 >= f1.max() - 1e-9).nonzero().flatten()
    nearest = (STEPS[best] - around).abs().argmin()
    return float(STEPS[best[nearest]])
