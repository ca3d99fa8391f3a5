"""Kill -9 in the midst of each stage, run again: the same final digests."""

import json
import multiprocessing
import os
import time
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

STAGES = ["ingest", "label", "choose", "encode", "images", "fit", "evaluate"]


def work(home: Path, told: Path) -> None:
    """A whole small run in a process of its own."""
    os.environ["TAI_HOME"] = str(home)
    from tests.tasks.road import digests

    told.write_text(json.dumps(digests()))


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Makes processes by forking one that has all imported and done nothing: seconds each."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.tasks.road"])
    return context


def start(processes: ForkServerContext, home: Path) -> ForkServerProcess:
    process = processes.Process(target=work, args=(home, home.with_suffix(".json")))
    process.start()
    return process


def finish(processes: ForkServerContext, home: Path) -> dict[str, Any]:
    process = start(processes, home)
    process.join(timeout=120)
    assert process.exitcode == 0
    return dict(json.loads(home.with_suffix(".json").read_text()))


def kill_during(processes: ForkServerContext, home: Path, stage: str) -> None:
    process = start(processes, home)
    deadline = time.monotonic() + 120
    while not list((home / stage).glob(".*.building")):
        assert process.is_alive(), f"{stage} was over before it was seen"
        assert time.monotonic() < deadline, f"{stage} did not begin"
        time.sleep(0.001)
    process.kill()
    process.join()
    # the kill came in time: nothing of the stage that was being made looks whole
    assert list((home / stage).glob(".*.building"))


def test_a_killed_run_goes_on_to_the_same_bytes(
    processes: ForkServerContext, tmp_path: Path
) -> None:
    whole = finish(processes, tmp_path / "whole")
    assert whole["fresh"]
    for stage in STAGES:
        kill_during(processes, tmp_path / "killed", stage)
    assert finish(processes, tmp_path / "killed")["digests"] == whole["digests"]
    again = finish(processes, tmp_path / "killed")
    assert again == {"digests": whole["digests"], "fresh": False}
