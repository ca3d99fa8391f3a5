"""Runs in processes forked from one that has imported all: seconds each; and what homes hold."""

import importlib
import json
import os
import signal
import sqlite3
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

PICTURES: Final = "tests/small/images"
PROFILE: Final = "demo"
SETTINGS: Final[dict[str, Any]] = {
    "world.captions": 200,
    "world.scenes": 30,
    "world.labelled": 30,
    "methods.tai-dpt.epochs": 2,
    "run": ["zero-shot", "close", "phrase-patches", "linear-probe", "tai-dpt"],
    "sources": [
        {"source": "world", "form": "coco", "path": "captions/captions_world.json"},
        {
            "source": "world-narratives",
            "form": "narratives",
            "path": "captions/narratives_world.jsonl",
        },
        {"source": "composed", "form": "composed", "at_least": 3},
    ],
    "images": [
        {
            "name": "same-style",
            "annotations": "same-style/instances.json",
            "folder": "same-style/images",
        },
        {"name": "unlabelled", "form": "folder", "folder": "style-shift/images"},
    ],
}
"""The demo in little: every kind of stage, weights, and the alias `best`."""


@dataclass(frozen=True)
class Forked:
    """A process with a group of its own."""

    pid: int
    log: Path

    def has_ended(self) -> bool:
        """Whether it has ended by itself; it stays to be waited for."""
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.pid, options) is not None

    def wait(self) -> int:
        """Its exit code, or less than 0 if a signal ended it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def signal(self, number: signal.Signals) -> None:
        """Send its whole group a signal."""
        os.killpg(self.pid, number)


def preload() -> None:
    """Import what runs import, also what they import late; nothing is done, no thread begun."""
    for name in (
        "duckdb",
        "flows.tai",
        "mlflow.pyfunc",
        "mlflow.store.db.utils",
        "mlflow.store.tracking.sqlalchemy_store",
        "open_clip",
        "tasks.serving.predict",
        "tasks.serving.tagger",
        "torchvision",
        "scipy.optimize",
    ):
        importlib.import_module(name)


def fork(home: Path, work: Callable[[], object]) -> Forked:
    """Do `work` in a fork of this process, with another home; what it says is in the log."""
    log = home.with_suffix(".log")
    pid = os.fork()
    if pid:
        return Forked(pid, log)
    code = 2
    try:
        os.setsid()
        number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(number, 1)
        os.dup2(number, 2)
        os.environ["TAI_HOME"] = str(home)
        work()
        code = 0
    except SystemExit as told:
        sys.stderr.write(f"{told}\n")
        code = 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def command() -> list[str]:
    """The arguments of the run."""
    pairs = [["--set", f"{name}={json.dumps(value)}"] for name, value in SETTINGS.items()]
    return ["--profile", PROFILE, *(word for pair in pairs for word in pair)]


def tai() -> None:
    """`python -m flows.tai`, as its command line does it."""
    import flows.tai as flow
    from flows.command import run_command
    from flows.doors import check

    changes = [f"{name}={json.dumps(value)}" for name, value in SETTINGS.items()]
    run_command(flow.tai, check, Namespace(profile=PROFILE, data=None, set=changes))


def predict() -> None:
    """`python -m flows.predict`, without its flow; the tags are a stage."""
    from tasks.serving.predict import tag_folder

    out = Path(os.environ["TAI_HOME"]).with_suffix(".tags")
    tag_folder.fn(PICTURES, f"tai-{PROFILE}@best", None, str(out))


def tai_and_predict() -> None:
    """A run, and tags by the model that it has left."""
    tai()
    predict()


def done(home: Path, work: Callable[[], object] = tai_and_predict) -> str:
    """Do it all; what it said. An error ends the benchmark."""
    run = fork(home, work)
    code = run.wait()
    said = run.log.read_text(encoding="utf-8", errors="replace")
    if code:
        sys.exit(f"{home}: ended with {code}:\n{said}")
    return said


def digests(home: Path) -> dict[str, str]:
    """The digest of each finished stage by its name and key."""
    found = {}
    for manifest in home.glob("*/*/manifest.json"):
        if not manifest.parent.name.startswith("."):
            stage = json.loads(manifest.read_text(encoding="utf-8"))
            found[f"{stage['stage']}/{manifest.parent.name}"] = stage["digest"]
    return found


def figures(home: Path) -> dict[str, float]:
    """Metrics of the last finished run in MLflow."""
    query = (
        "select key, value from latest_metrics where run_uuid = (select run_uuid from runs "
        "join tags using (run_uuid) where status = 'FINISHED' and tags.key = 'model' "
        "order by start_time desc limit 1)"
    )
    return dict(_rows(home, query))


def running(home: Path) -> list[str]:
    """Names of the runs that MLflow takes for running."""
    return [name for (name,) in _rows(home, "select name from runs where status = 'RUNNING'")]


def _rows(home: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(home / "mlflow.db")) as connection:
        return connection.execute(query).fetchall()
