"""The ranking loss alone, forward and backward: positives against classes, all pairs, and sorted.

All pairs [B, C, C] do not fit the memory at 1,000 classes: they are timed on some rows and scaled.
"""

import argparse
import json
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks import plain
from benchmarks.memory import peak_mb
from benchmarks.timing import medians
from models.losses import ranking_loss

MARGIN, SCALE = 1.0, 4.0
LABELS_PER_CAPTION = 2.5
ROWS_OF_ALL_PAIRS = 16


def sorted_ranking_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """The same sum without any pair: a row's values in order, and sums of the positives below."""
    values, order = (SCALE * scores - MARGIN * labels).sort(dim=1)
    positive = labels.gather(1, order).to(scores.dtype)
    below, sum_below = positive.cumsum(dim=1), (values * positive).cumsum(dim=1)
    return ((1 - positive) * (values * below - sum_below)).sum() / len(scores)


def step_of(
    loss: Callable[[Tensor, Tensor], Tensor], scores: Tensor, labels: Tensor
) -> Callable[[], Tensor]:
    """The loss of some scores, with its gradient in place."""

    def step() -> Tensor:
        scores.grad = None
        found = loss(scores, labels)
        found.backward()
        return found.detach()

    return step


def main() -> None:
    """Print a table and, last, one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ranking", description=__doc__)
    parser.add_argument("--classes", type=int, nargs="+", default=[20, 80, 1000])
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    found = {}
    print(f"batch {arguments.batch}, {LABELS_PER_CAPTION} labels a caption, fp32; ms and MB")
    print(f"{'classes':>8} {'ours':>7} {'MB':>7} {'pairs':>9} {'MB':>9} {'sorted':>7} {'MB':>7}")
    for classes in arguments.classes:
        scores = torch.rand(arguments.batch, classes, generator=generator).requires_grad_()
        chance = torch.rand(arguments.batch, classes, generator=generator)
        labels = chance < LABELS_PER_CAPTION / classes
        some = scores.detach()[:ROWS_OF_ALL_PAIRS].requires_grad_()
        ours, by_sorting = (
            step_of(loss, scores, labels) for loss in (ranking_loss, sorted_ranking_loss)
        )
        pairs = step_of(
            lambda s, t: plain.ranking_loss(s, t, MARGIN, SCALE), some, labels[:ROWS_OF_ALL_PAIRS]
        )
        torch.testing.assert_close(ours(), by_sorting(), rtol=1e-4, atol=0)
        share = arguments.batch / ROWS_OF_ALL_PAIRS
        times = medians(ours, pairs, by_sorting, repeats=arguments.repeats)
        peaks = [peak_mb(way) for way in (ours, pairs, by_sorting)]
        ours_ms, pairs_ms, sorted_ms = (
            round(1e3 * seconds, 2) for seconds in (times[0], times[1] * share, times[2])
        )
        row = {"ours_ms": ours_ms, "pairs_ms": pairs_ms, "sorted_ms": sorted_ms}
        row |= {"ours_mb": peaks[0], "pairs_mb": round(peaks[1] * share), "sorted_mb": peaks[2]}
        found[f"C{classes}"] = row
        print(
            f"{classes:>8} {row['ours_ms']:>7} {row['ours_mb']:>7} {row['pairs_ms']:>9} "
            f"{row['pairs_mb']:>9} {row['sorted_ms']:>7} {row['sorted_mb']:>7}"
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
