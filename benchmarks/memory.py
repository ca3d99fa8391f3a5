"""Peak memory of a piece of work, on Linux."""

import ctypes
from collections.abc import Callable
from pathlib import Path


def peak_mb(work: Callable[[], object]) -> float:
    """How far the process grew while `work` ran, in MB."""
    # hand freed memory back first, so that `work` cannot hide in it
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    work()
    return round((_status("VmHWM") - before) / 1e3, 1)


def most_mb() -> float:
    """The most memory that this process has had, in MB; getrusage would tell its parent's."""
    return _status("VmHWM") / 1e3


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
