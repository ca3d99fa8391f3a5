"""Average precision and F1, as multi-label recognition measures them (METHODS 8).

Labels are 1 (shown), 0 (not shown) or -1 (ignored, as PASCAL VOC's difficult objects): an ignored
image is neither right nor wrong for that class. Booleans do where nothing is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from models.lazily import lazily

with lazily():
    import torch
    from torch import Tensor
    from torch.nn import functional as F

LARGEST_WEIGHTS = 2**24


def average_precisions(scores: Tensor, labels: Tensor) -> Tensor:
    """AP of each class in [0, 1], float64 [C]; NaN for a class without positives.

    Args:
        scores: [N, C].
        labels: [N, C], 1, 0 or -1.

    AP is the mean over positives of the precision at their rank, without interpolation. Images of
    equal score share one rank, the last of theirs, so their order in the file has no say; the
    result is scikit-learn's `average_precision_score`.

    Raises:
        ValueError: a score is not finite, so has no rank.

    """
    return weighted_average_precisions(scores, labels, torch.ones(len(scores), 1))[0]


def weighted_average_precisions(scores: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """AP [R, C], float64, of R weightings [N, R] of the images (how often each one counts)."""
    return _under(_rankings(scores, labels), weights)


def mean_average_precision(average_precisions: Tensor) -> float:
    """MAP in percent over the classes that have a positive; NaN if none has."""
    return float(100 * average_precisions.nanmean())


def mean_precision_at_recall(scores: Tensor, labels: Tensor, levels: int = 101) -> Tensor:
    """[L] mean over classes of the best precision at a recall of at least 0, ..., 1, evenly spaced.

    Classes without a positive are left out; NaN if none has one.
    """
    ones = torch.ones(len(scores), 1)
    wanted = torch.linspace(0, 1, levels, dtype=torch.float64)
    curves = []
    for ranking in _rankings(scores, labels):
        if len(ranking.positives):
            precision, shown = ranking.precisions(ones)
            best = precision[:, 0].flip(0).cummax(dim=0).values.flip(0)
            recall = shown[:, 0].cumsum(dim=0) / shown.sum()
            # a rounding error above 1 must not lead past the last rank
            at = torch.searchsorted(recall, wanted - 1e-9).clamp(max=len(recall) - 1)
            curves.append(best[at])
    return torch.stack(curves).mean(dim=0) if curves else wanted * float("nan")


def resample_weights(images: int, resamples: int, generator: torch.Generator) -> Tensor:
    """[N, R] float32: how often each of N images is drawn in each of R bootstrap resamples."""
    drawn = torch.randint(images, (resamples, images), generator=generator)
    offsets = torch.arange(resamples)[:, None] * images
    counts = torch.bincount((drawn + offsets).flatten(), minlength=resamples * images)
    return counts.view(resamples, images).T.float().contiguous()


def bootstrap_maps(
    branches: Mapping[str, Tensor], labels: Tensor, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Tensor]:
    """MAP in percent [R] of R resamples of the images, for score matrices [N, C] by name.

    All matrices meet the same resamples, and the same N and seed give the same ones, so that
    differences are paired. A class that a resample shows no positive of is left out of its mean.
    """
    generator = torch.Generator().manual_seed(seed)
    rankings = {name: _rankings(scores, labels) for name, scores in branches.items()}
    found: dict[str, list[Tensor]] = {name: [] for name in branches}
    at_once = max(1, LARGEST_WEIGHTS // len(labels))
    for start in range(0, resamples, at_once):
        weights = resample_weights(len(labels), min(at_once, resamples - start), generator)
        for name, of_branch in rankings.items():
            found[name].append(100 * _under(of_branch, weights).nanmean(dim=1))
    return {name: torch.cat(maps) for name, maps in found.items()}


def interval(values: Tensor, estimate: float) -> tuple[float, float]:
    """95 % interval around an estimate, from its bootstrap values [R].

    Resamples repeat images, which lifts a rank metric of few positives: the values' middle 95 % is
    shifted so that their mean is the estimate.
    """
    bounds = torch.quantile(values.double(), torch.tensor([0.025, 0.975]).double())
    low, high = (bounds - values.double().mean() + estimate).tolist()
    return low, high


@dataclass(frozen=True)
class F1:
    """F1 of decisions, in percent."""

    per_class: float
    """CF1: harmonic mean of precision and recall that are each averaged over classes."""
    overall: float
    """OF1: of all decisions together."""


def f1_scores(decided: Tensor, labels: Tensor) -> F1:
    """CF1 and OF1 of decisions [N, C] (booleans); an ignored image counts in neither."""
    return f1_of_counts(decision_counts(decided, labels))


def decision_counts(decided: Tensor, labels: Tensor) -> Tensor:
    """[3, C] float64: right decisions, decisions, and positives of each class.

    Counts of parts of an image set add up to those of the whole.
    """
    decided, positive, known = decided.bool(), labels == 1, labels >= 0
    counted = (decided & positive, decided & known, positive)
    return torch.stack([each.sum(dim=0) for each in counted]).double()


def f1_of_counts(counts: Tensor) -> F1:
    """CF1 and OF1 of `decision_counts` [3, C].

    CF1 averages over the classes that have a positive; one never decided for has precision 0.
    """
    right, made, there = counts
    present = there > 0
    precision = (right / made.clamp(min=1))[present].mean()
    recall = (right / there.clamp(min=1))[present].mean()
    total = right.sum()
    return F1(
        _harmonic(float(precision), float(recall)),
        _harmonic(float(total / made.sum().clamp(min=1)), float(total / there.sum().clamp(min=1))),
    )


def best_thresholds(scores: Tensor, labels: Tensor) -> Tensor:
    """[C] the threshold of each class by which F1 of `scores` [N, C] > threshold is highest.

    It lies midway between two scores, or below them all; NaN for a class without positives.
    """
    order = scores.argsort(dim=0, descending=True)
    ranked = scores.gather(0, order).double()
    right = (labels == 1).gather(0, order).double().cumsum(dim=0)
    ranks = torch.arange(1, len(scores) + 1, dtype=torch.float64)[:, None]
    f1 = 2 * right / (ranks + right[-1])
    below = torch.cat([ranked[1:], ranked[-1:] - 1])
    # a threshold cannot pass between equal scores
    f1 = f1.masked_fill(ranked == below, -1.0)
    at = f1.argmax(dim=0, keepdim=True)
    middle = (ranked.gather(0, at) + below.gather(0, at))[0] / 2
    return middle.masked_fill(right[-1] == 0, float("nan"))


def top_decisions(scores: Tensor, count: int) -> Tensor:
    """Booleans [N, C] that are true for each image's `count` highest scores."""
    top = scores.topk(min(count, scores.shape[1]), dim=1).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, top, value=True)


def _harmonic(precision: float, recall: float) -> float:
    total = precision + recall
    return 200 * precision * recall / total if total else 0.0


@dataclass(frozen=True)
class _Ranking:
    """The images of one class, best score first, cut where a positive stands.

    A rank is a run of equal scores. Only ranks with a positive matter: `order` [K] has the images
    down to the last of them, `starts` [P] where each one's stretch begins in it; `positives` are
    the positive images in that order, and `first` [P] is where each rank's begin in them.
    """

    order: Tensor
    starts: Tensor
    positives: Tensor
    first: Tensor

    def average_precision(self, weights: Tensor) -> Tensor:
        """AP [R] under weights [N, R]; NaN without positives."""
        if not len(self.positives):
            return weights.new_full((weights.shape[1],), float("nan")).double()
        precision, shown = self.precisions(weights)
        return (precision * shown).sum(dim=0) / shown.sum(dim=0)

    def precisions(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Precision at each rank with a positive, and the positives' weight there: [P, R] both."""
        # an embedding bag sums rows over stretches in one pass that copies nothing
        all_ = F.embedding_bag(self.order, weights, self.starts, mode="sum").double()
        shown = F.embedding_bag(self.positives, weights, self.first, mode="sum").double()
        return shown.cumsum(dim=0) / all_.cumsum(dim=0).clamp(min=1), shown


def _rankings(scores: Tensor, labels: Tensor) -> list[_Ranking]:
    if not scores.isfinite().all():
        raise ValueError("scores are not finite; average precision needs an order")
    columns = zip(scores.T.contiguous(), labels.T.contiguous(), strict=True)
    return [_ranking(of_class, label) for of_class, label in columns]


def _ranking(scores: Tensor, labels: Tensor) -> _Ranking:
    known = (labels >= 0).nonzero().flatten()
    order = known[scores[known].argsort(descending=True, stable=True)]
    ranked = scores[order]
    places = (labels[order] == 1).nonzero().flatten()
    positives, one = order[places], torch.ones(1, dtype=torch.long)
    if not len(places):
        return _Ranking(order[:0], order[:0], order[:0], order[:0])
    lasts = torch.cat([ranked[1:] != ranked[:-1], one.bool()]).nonzero().flatten()
    rank = torch.searchsorted(lasts, places)
    first = torch.cat([one, rank.diff()]).nonzero().flatten()
    ends = lasts[rank[first]] + 1
    starts = torch.cat([0 * one, ends[:-1]])
    return _Ranking(order[: int(ends[-1])], starts, positives, first)


def _under(rankings: list[_Ranking], weights: Tensor) -> Tensor:
    """AP [R, C] of every class's ranking under weights [N, R]."""
    weights = weights.float()
    return torch.stack([ranking.average_precision(weights) for ranking in rankings], dim=1)
