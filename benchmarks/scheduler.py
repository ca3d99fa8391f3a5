"""What partitions cost besides their work: tasks of a runner, and finished stages to be looked at.

Partitions of no work go the road of real ones: through Prefect's server to a task runner, a few
hundred at a time, and as folders with a manifest that the next run reads. By how much each costs
more among many than among few one sees what would not scale.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from benchmarks.memory import most_mb
from flows.server import server
from tasks.runners import mapped, task_runner
from tasks.workspace import Recipe, Result, finished, run_stage


@task(name="nothing", cache_policy=NO_CACHE)
def nothing(number: int) -> int:
    """A partition's task without its work."""
    return number


@flow
def through_prefect(partitions: int) -> int:
    """How many partitions have come back."""
    calls = ({"number": number} for number in range(partitions))
    return sum(1 for _ in mapped(task_runner("threads"), nothing, calls))


def make(partitions: int) -> None:
    """Finished stages of a single byte."""

    def work(out: Path) -> Result:
        (out / "one").write_bytes(b"1")
        return Result({}, {})

    for number in range(partitions):
        run_stage(Recipe("nothing", "code", {}, {"number": number}), work)


def measure(partitions: int) -> dict[str, float]:
    """Milliseconds a partition, and the most memory that this process has had."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["TAI_HOME"] = home
        start = time.perf_counter()
        assert through_prefect(partitions) == partitions
        scheduled = time.perf_counter()
        make(partitions)
        made = time.perf_counter()
        assert sum(1 for _ in finished("nothing", "one")) == partitions
        read = time.perf_counter()
    seconds = {
        "task_ms": scheduled - start,
        "stage_made_ms": made - scheduled,
        "stage_read_ms": read - made,
    }
    each = {name: round(1000 * value / partitions, 3) for name, value in seconds.items()}
    return {"partitions": partitions} | each | {"peak_mb": round(most_mb())}


def main() -> None:
    """Print a table and, last, one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scheduler", description=__doc__)
    parser.add_argument("--partitions", type=int, nargs="+", default=[100, 1_000, 10_000])
    arguments = parser.parse_args()
    with server():
        rows = [measure(partitions) for partitions in arguments.partitions]
    print("".join(f"{name:>15}" for name in rows[0]))
    for row in rows:
        print("".join(f"{value:>15,}" for value in row.values()))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
