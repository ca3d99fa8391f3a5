"""Medians of times of several ways, taken turn by turn in one run."""

import statistics
import time
from collections.abc import Callable


def medians(*ways: Callable[[], object], repeats: int) -> list[float]:
    """Median seconds of each way, after one untimed call of each."""
    times: list[list[float]] = [[] for _ in ways]
    for turn in range(repeats + 1):
        for way, found in zip(ways, times, strict=True):
            start = time.perf_counter()
            way()
            if turn:
                found.append(time.perf_counter() - start)
    return [statistics.median(found) for found in times]
