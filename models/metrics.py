"""Average precision, as multi-label recognition measures it (METHODS 8)."""

import torch
from torch import Tensor


def average_precisions(scores: Tensor, labels: Tensor) -> Tensor:
    """AP of each class in [0, 1], float64 [C]; NaN for a class without positives.

    Args:
        scores: [N, C]; of equal scores the earlier image ranks higher.
        labels: [N, C] booleans.

    AP is the mean over positives of the precision at their rank, without interpolation.

    Raises:
        ValueError: a score is not finite, so has no rank.

    """
    if not scores.isfinite().all():
        raise ValueError("scores are not finite; average precision needs an order")
    order = scores.argsort(dim=0, descending=True, stable=True)
    ranked = labels.gather(0, order).double()
    ranks = torch.arange(1, len(scores) + 1, dtype=torch.float64, device=scores.device)[:, None]
    precision = ranked.cumsum(dim=0) / ranks
    return (precision * ranked).sum(dim=0) / ranked.sum(dim=0)


def mean_average_precision(average_precisions: Tensor) -> float:
    """MAP in percent over the classes that have a positive; NaN if none has."""
    return float(100 * average_precisions.nanmean())
