"""Medians of times of several ways, taken turn by turn in one run."""

import statistics
import time
from collections.abc import Callable
from typing import Final

A_TURN_S: Final = 0.5
"""A way that takes less is called again until then, as in a loop: caches and memory stay warm."""


def medians(*ways: Callable[[], object], repeats: int) -> list[float]:
    """Median seconds of a call of each way, after one untimed call of each."""
    times: list[list[float]] = [[] for _ in ways]
    for way in ways:
        way()
    for _ in range(repeats):
        for way, found in zip(ways, times, strict=True):
            calls, start = 0, time.perf_counter()
            while not calls or time.perf_counter() - start < A_TURN_S:
                way()
                calls += 1
            found.append((time.perf_counter() - start) / calls)
    return [statistics.median(found) for found in times]
