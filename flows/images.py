"""Images in partitions: what is missing of large sets is worked out by a task runner."""

from collections.abc import Sequence
from typing import Final

from tasks.images.parts import Encoder, Pictures, missing_parts, run_part
from tasks.progress import Progress
from tasks.runners import mapped, task_runner

FEWEST: Final = 2
"""Partitions that a task runner is started for."""


def work_ahead(encoder: Encoder, sets: Sequence[Pictures], runner: str) -> None:
    """Have a task run for each partition of some sets that is not there yet.

    What is asked for later finds them; a single one is worked out there.

    Args:
        encoder: what is worked out.
        sets: of which images.
        runner: threads (one partition after the other: each keeps all cores, or the GPU, busy),
            dask or ray.

    """
    parts = missing_parts(encoder, sets)
    if len(parts) < FEWEST:
        return
    progress = Progress("images", sum(len(part.files) for part in parts), "images")
    calls = (
        {"encoder": encoder, "part": part, "number": n, "parts": len(parts), "progress": progress}
        for n, part in enumerate(parts, start=1)
    )
    done = 0
    for part, _ in zip(parts, mapped(task_runner(runner, 1), run_part, calls), strict=True):
        done += len(part.files)
        # a worker elsewhere counts for itself
        progress.reach(done)
