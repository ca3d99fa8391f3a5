"""A training run that stops after any step goes on to the same prompts, bit for bit."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from safetensors import safe_open

from benchmarks.captions import encode_table
from tasks.backbone.loading import load_backbone
from tasks.methods import trainer
from tasks.methods.state import STATE
from tests.tasks.methods.training import CONFIG, ROOT, Watched, run


class StoppedError(Exception):
    pass


def stop() -> None:
    raise StoppedError


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    loaded = load_backbone(CONFIG, "", seed=0, resolution=None, device="cpu")
    texts = ["A dog.", "Two cats near a house in the old town.", "A boat", "trees and a car"] * 3
    classes = [["dog"], ["cat", "house"], ["boat"], ["tree", "car"]] * 3
    ids = [str(i) for i in range(12)]
    table = pa.table({"caption_id": ids, "text": texts, "classes": classes})
    encode_table(table, loaded.backbone, folder)
    return folder


@pytest.fixture(scope="module")
def whole(features: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return run(tmp_path_factory.mktemp("whole"), Watched(features, None, stop))


@pytest.mark.parametrize("stop_at", [1, 2, 4, 8, 9])
def test_a_stopped_training_goes_on(
    tmp_path: Path, features: Path, whole: bytes, stop_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "CHECKPOINT_EVERY_S", -1.0)
    with pytest.raises(StoppedError):
        run(tmp_path, Watched(features, stop_at, stop))
    assert run(tmp_path, Watched(features, None, stop)) == whole


def test_a_training_killed_in_mid_epoch_goes_on(
    tmp_path: Path, features: Path, whole: bytes
) -> None:
    script = [sys.executable, "tests/tasks/methods/training.py", str(tmp_path), str(features), "6"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(script, cwd=ROOT, env=environment, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    with safe_open(tmp_path / trainer.CHECKPOINT, framework="pt") as file:
        # five of nine steps: the second of the second epoch's three is done
        assert json.loads(file.metadata()["progress"])["step"] == 5
    assert not (tmp_path / STATE).exists()
    assert run(tmp_path, Watched(features, None, stop)) == whole


def test_training_lowers_the_loss(whole: bytes) -> None:
    losses = [
        float(line.split(":")[1].strip(" ,"))
        for line in whole.decode("utf-8", "ignore").splitlines()
        if "loss/train" in line
    ]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
