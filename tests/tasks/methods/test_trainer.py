"""A training run that stops after any step goes on to the same prompts, bit for bit."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors import safe_open
from torch.nn import functional as F

from benchmarks.captions import encode_table
from models.backbone import ImageFeatures
from models.examples import ImageBatch
from models.method import Learner, State, TrainedSettings
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
    tmp_path: Path,
    features: Path,
    whole: bytes,
    stop_at: int,
) -> None:
    with pytest.raises(StoppedError):
        run(tmp_path, Watched(features, stop_at, stop), -1.0)
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


class Lines(Learner):
    """Logits of images by weights and biases, with noise on what they see."""

    def __init__(self, settings: TrainedSettings, classes: int, dim: int, kind: str) -> None:
        super().__init__(settings)
        self.kind = kind
        start = torch.randn(classes, dim, generator=torch.Generator().manual_seed(1))
        self.weight = torch.nn.Parameter(start)
        self.bias = torch.nn.Parameter(torch.zeros(classes))

    def loss(self, batch: ImageBatch, generator: torch.Generator) -> torch.Tensor:
        noise = torch.randn(batch.features.pooled.shape, generator=generator)
        logits = (batch.features.pooled + 0.1 * noise) @ self.weight.T + self.bias
        known = (batch.labels >= 0).to(logits.dtype)
        targets = (batch.labels == 1).to(logits.dtype)
        errors = F.binary_cross_entropy_with_logits(logits, targets, weight=known, reduction="sum")
        return errors / len(logits)

    def state(self) -> State:
        return {"weight": self.weight.detach(), "bias": self.bias.detach()}

    def optimiser(self) -> torch.optim.Optimizer:
        if self.kind == "adamw":
            return torch.optim.AdamW(self.parameters(), lr=1.0, weight_decay=0.1)
        return super().optimiser()

    def rate(self, epoch: int, step: int, steps: int) -> float:
        if self.kind == "adamw":
            # by step, as Tip-Adapter-F has it
            whole = self.settings.epochs * steps
            place = (epoch * steps + step) / whole
            return self.settings.learning_rate * (1 + math.cos(math.pi * place)) / 2
        return super().rate(epoch, step, steps)


class Pictures:
    """Seven images of two classes, some labels unknown."""

    def __init__(self, stop_at: int | None = None) -> None:
        generator = torch.Generator().manual_seed(0)
        self.pooled = torch.randn(7, 3, generator=generator)
        self.labels = torch.randint(-1, 2, (7, 2), generator=generator).to(torch.int8)
        self.calls, self.stop_at = 0, stop_at

    def __len__(self) -> int:
        return 7

    def batch(self, rows: torch.Tensor, device: torch.device) -> ImageBatch:
        self.calls += 1
        if self.calls == self.stop_at:
            raise StoppedError
        pooled = self.pooled[rows]
        return ImageBatch(ImageFeatures(pooled, pooled, pooled[:, None]), self.labels[rows])


def independent(kind: str, seed: int, epochs: int, batch: int, base: float) -> list[np.ndarray]:
    """The same training in NumPy's float64, from the optimisers' own papers."""
    pictures = Pictures()
    inputs, labels = pictures.pooled.double().numpy(), pictures.labels.numpy()
    start = torch.randn(2, 3, generator=torch.Generator().manual_seed(1)).double().numpy()
    values = [start.copy(), np.zeros(2)]
    first, second = ([np.zeros_like(value) for value in values] for _ in range(2))
    steps, count = math.ceil(7 / batch), 0
    for epoch in range(epochs):
        of_epoch = seed * 1_000_003 + epoch
        order = torch.randperm(7, generator=torch.Generator().manual_seed(of_epoch)).numpy()
        for step in range(steps):
            rows = order[step * batch : (step + 1) * batch]
            draws = torch.Generator().manual_seed(of_epoch * 7_919 + step)
            noise = torch.randn(len(rows), 3, generator=draws).double().numpy()
            seen = inputs[rows] + 0.1 * noise
            probability = 1 / (1 + np.exp(-(seen @ values[0].T + values[1])))
            wrong = (probability - (labels[rows] == 1)) * (labels[rows] >= 0) / len(rows)
            gradients = [wrong.T @ seen, wrong.sum(axis=0)]
            count += 1
            for at, gradient in enumerate(gradients):
                if kind == "sgd":
                    rate = 1e-5
                    if epoch:
                        rate = base * (1 + math.cos(math.pi * (epoch - 1) / epochs)) / 2
                    first[at] = 0.9 * first[at] + gradient + 5e-4 * values[at]
                    values[at] = values[at] - rate * first[at]
                else:
                    place = (epoch * steps + step) / (epochs * steps)
                    rate = base * (1 + math.cos(math.pi * place)) / 2
                    values[at] = values[at] * (1 - rate * 0.1)
                    first[at] = 0.9 * first[at] + 0.1 * gradient
                    second[at] = 0.999 * second[at] + 0.001 * gradient**2
                    mean, spread = first[at] / (1 - 0.9**count), second[at] / (1 - 0.999**count)
                    values[at] = values[at] - rate * mean / (np.sqrt(spread) + 1e-8)
    return values


def lines(folder: Path, kind: str, pictures: Pictures) -> State:
    folder.mkdir(exist_ok=True)
    settings = TrainedSettings(epochs=4, batch=3, learning_rate=0.3)
    state, history, _ = trainer.train(
        Lines(settings, 2, 3, kind),
        pictures,
        torch.arange(7),
        folder,
        seed=5,
        device=torch.device("cpu"),
        on_epoch=lambda epoch, figures: None,
        checkpoint_every_s=-1.0,
    )
    assert len(history) == 4
    return state


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_steps_are_those_of_an_independent_optimiser(tmp_path: Path, kind: str) -> None:
    state = lines(tmp_path, kind, Pictures())
    weight, bias = independent(kind, seed=5, epochs=4, batch=3, base=0.3)
    np.testing.assert_allclose(state["weight"].numpy(), weight, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state["bias"].numpy(), bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
@pytest.mark.parametrize("stop_at", [2, 5, 12])
def test_any_optimiser_goes_on_in_mid_epoch(tmp_path: Path, kind: str, stop_at: int) -> None:
    whole = lines(tmp_path / "whole", kind, Pictures())
    with pytest.raises(StoppedError):
        lines(tmp_path / "stopped", kind, Pictures(stop_at))
    again = lines(tmp_path / "stopped", kind, Pictures())
    assert all(again[name].equal(tensor) for name, tensor in whole.items())
