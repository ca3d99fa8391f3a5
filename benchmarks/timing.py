"""Medians of times of two ways, taken turn by turn in one run."""

import statistics
import time
from collections.abc import Callable


def alternately(
    plain: Callable[[], object], fast: Callable[[], object], repeats: int
) -> tuple[float, float]:
    """Median seconds of both, after one untimed call of each."""
    plain()
    fast()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for way, found in zip((plain, fast), times, strict=True):
            start = time.perf_counter()
            way()
            found.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])
