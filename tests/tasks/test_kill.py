"""Kill -9 in the midst of each stage, run again: the same final digests."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
STAGES = ["ingest", "label", "choose", "encode", "images", "fit", "evaluate"]


def start(home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "tests/tasks/road.py"],
        cwd=ROOT,
        env={**os.environ, "TAI_HOME": str(home), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(home: Path) -> dict[str, object]:
    process = start(home)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return dict(json.loads(out.splitlines()[-1]))


def kill_during(home: Path, stage: str) -> None:
    process = start(home)
    deadline = time.monotonic() + 120
    while not list((home / stage).glob(".*.building")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, f"{stage} did not begin"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    # the kill came in time: nothing of the stage that was being made looks whole
    assert list((home / stage).glob(".*.building"))


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    whole = finish(tmp_path / "whole")
    assert whole["fresh"]
    for stage in STAGES:
        kill_during(tmp_path / "killed", stage)
    assert finish(tmp_path / "killed")["digests"] == whole["digests"]
    again = finish(tmp_path / "killed")
    assert again == {"digests": whole["digests"], "fresh": False}
