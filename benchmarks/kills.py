"""Kill -9 at random moments spread over all that a run does; then the same bytes as without.

A round has a home of its own: a kill within each stage in turn, each run beginning at what the kill
before has left, and then a run that is let finish. Its stages, metrics, registered model and tags
must be those of a run that was never killed, and nothing may be left as RUNNING in MLflow. Where a
kill has hit is looked up while the process is stopped: which stage's lock it holds.

    python -m benchmarks.kills [KILLS]
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prefect.testing.utilities import prefect_test_harness

from benchmarks import forked
from tasks.files import is_locked

KILLS: Final = 200
START: Final = "start-up"
IMPORTS: Final = "imports, Prefect's own server"
TABLES: Final = "MLflow's tables"
BETWEEN: Final = "between stages (MLflow, Prefect)"
REGISTRY: Final = "registry, end"
MISSED: Final = ""
COMMAND_S: Final = 20.0
PAGE, CONFIG = "index.html", "config.json"


@dataclass(frozen=True)
class Aim:
    """Something that a run does, and how long that takes."""

    what: str
    seconds: float


def held(home: Path) -> set[str]:
    """Stages that are being made at this moment."""
    return {lock.parent.name for lock in home.glob("*/.*.lock") if is_locked(lock)}


def logged(home: Path, name: str) -> int:
    """How many runs have logged a file."""
    return len(list(home.glob(f"mlartifacts/*/artifacts/{name}")))


@dataclass(frozen=True)
class Since:
    """What runs before have logged."""

    pages: int
    configs: int

    @classmethod
    def now(cls, home: Path) -> "Since":
        """What there is now."""
        return cls(logged(home, PAGE), logged(home, CONFIG))

    def is_at(self, home: Path, what: str) -> bool:
        """Whether a run is at that; cheaper to ask than where it is."""
        if what in (BETWEEN, REGISTRY, TABLES):
            return self.where(home) == what
        return any(map(is_locked, (home / what).glob(".*.lock")))

    def where(self, home: Path) -> str:
        """What a run that began since is at."""
        stages = held(home)
        if stages:
            return min(stages)
        if is_locked(home / ".mlflow.db.lock"):
            return TABLES
        if logged(home, PAGE) > self.pages:
            return REGISTRY
        return BETWEEN if logged(home, CONFIG) > self.configs else START


def timeline(home: Path) -> list[Aim]:
    """What an unbroken run does, in order, watched."""
    since, run = Since.now(home), forked.fork(home, forked.tai)
    seconds: Counter[str] = Counter()
    at = time.monotonic()
    while not run.has_ended():
        time.sleep(0.01)
        now = time.monotonic()
        seconds[since.where(home)] += now - at  # type: ignore[assignment]
        at = now
    if run.wait():
        sys.exit(run.log.read_text(encoding="utf-8", errors="replace"))
    stages = {path.parent.parent.name for path in home.glob("*/*/manifest.json")}
    for stage in stages:
        seconds[stage] += 0  # one too short to be seen
    return [Aim(what, seconds[what]) for what in sorted(seconds, key=lambda what: what != TABLES)]


def strike(home: Path, aim: Aim, chance: random.Random) -> str:
    """Start a run, kill it while it is at something; what it was at in truth."""
    for done in (home / aim.what).glob("[!.]*"):
        shutil.rmtree(done)  # so that it is made once more
    since, run = Since.now(home), forked.fork(home, forked.tai)
    while aim.what != START and not since.is_at(home, aim.what) and not run.has_ended():
        time.sleep(0.004)
    time.sleep(chance.uniform(0, aim.seconds))
    if run.has_ended():
        if run.wait():
            sys.exit(run.log.read_text(encoding="utf-8", errors="replace"))
        return MISSED
    run.signal(signal.SIGSTOP)
    where = since.where(home)
    run.signal(signal.SIGKILL)
    run.wait()
    return where


def strike_command(home: Path, seconds: float, chance: random.Random) -> str:
    """The same of the command itself, which imports all and starts Prefect's own server."""
    since = Since.now(home)
    outside = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "flows.tai", *forked.command()],
        env=outside | {"TAI_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        _, errors = process.communicate(timeout=chance.uniform(0, seconds))
        if process.returncode:
            sys.exit(errors.decode(errors="replace"))
        return MISSED
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGSTOP)
        where = since.where(home)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return IMPORTS if where == START else where


def is_as(home: Path, whole: Path) -> list[str]:
    """What a home has otherwise than one whose run was never killed."""
    wrong = [f"still RUNNING in MLflow: {name}" for name in forked.running(home)]
    # a report tells where its home lies
    ours, theirs = (
        {key: digest for key, digest in forked.digests(each).items() if key[:7] != "report/"}
        for each in (home, whole)
    )
    wrong += [
        f"{key}: otherwise" for key in ours.keys() | theirs if ours.get(key) != theirs.get(key)
    ]
    if forked.figures(home) != forked.figures(whole):
        wrong.append("other metrics in MLflow")
    return wrong


def main() -> None:
    """Rounds of kills until there were enough; print where they hit, and what came out."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else KILLS
    chance = random.Random(14)  # noqa: S311
    hits: Counter[str] = Counter()
    wrong: list[str] = []
    rounds = 0
    forked.preload()
    with tempfile.TemporaryDirectory() as folder, prefect_test_harness(120):
        whole = Path(folder) / "whole"
        whole.mkdir()
        aims = timeline(whole)
        forked.done(whole, forked.predict)
        print("an unbroken run:", ", ".join(f"{aim.what} {aim.seconds:.2f} s" for aim in aims))
        while hits.total() < count:
            home = Path(folder) / f"round-{rounds}"
            home.mkdir()
            hits[strike_command(home, COMMAND_S, chance)] += 1
            for aim in aims:
                hits[strike(home, aim, chance)] += hits.total() < count
            hits.pop(MISSED, None)
            forked.done(home)
            found = is_as(home, whole)
            wrong += found
            rounds += 1
            print(f"round {rounds}: {hits.total()} kills; wrong: {found or 0}", flush=True)
        left = [str(path) for path in Path(folder).glob("*/*/.*.building")]
    for what, number in hits.most_common():
        print(f"{number:5d}  {what}")
    print(*left, sep="\n")
    told = {"kills": hits.total(), "rounds": rounds, "wrong": len(wrong), "left": len(left)}
    print(json.dumps({"benchmark": "kills"} | told | {"hits": dict(hits)}))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
