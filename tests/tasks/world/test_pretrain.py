"""Pre-training learns, and goes on from a checkpoint to the same bytes."""

import json
from pathlib import Path

import pytest
import torch

from models.contrastive import contrastive_loss
from tasks.world import pairs, pretrain
from tasks.world.pairs import PretrainSettings

FEW = PretrainSettings(
    batch=32, steps=24, finish=4, warmup=4, learning_rate=3e-3, plain=24, one_thing=24
)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain, "LOOK_EVERY", 8)
    monkeypatch.setattr(pairs, "VALIDATION_PAIRS", 16)


def test_the_loss_is_clips() -> None:
    generator = torch.Generator().manual_seed(0)
    images, texts = (torch.randn(6, 4, generator=generator) for _ in range(2))
    scale = torch.tensor(3.0)
    total = 0.0
    for own in range(6):
        for queries, keys in ((images, texts), (texts, images)):
            cosines = [torch.cosine_similarity(queries[own], key, dim=0) for key in keys]
            logits = 3.0 * torch.stack(cosines).double()
            total += float(logits.logsumexp(0) - logits[own])
    assert float(contrastive_loss(images, texts, scale)) == pytest.approx(total / 12, rel=1e-5)


@pytest.mark.usefixtures("quick")
def test_a_few_steps_lower_the_loss_and_a_stopped_run_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = torch.get_num_threads()
    pretrain.pretrain(FEW, tmp_path / "whole", ranks=1)
    losses = [
        look["loss"] for look in json.loads((tmp_path / "whole/card.json").read_text())["history"]
    ]
    assert losses[-1] < losses[0] - 0.1

    class StoppedError(Exception):
        pass

    saved = pretrain._save

    def save_and_stop(*arguments: object) -> None:
        saved(*arguments)  # type: ignore[arg-type]
        pretrain.dist.destroy_process_group()
        raise StoppedError

    monkeypatch.setattr(pretrain, "CHECKPOINT_EVERY_S", 0)
    monkeypatch.setattr(pretrain, "_save", save_and_stop)
    for _ in range(2):
        with pytest.raises(StoppedError):
            pretrain.pretrain(FEW, tmp_path / "stopped", ranks=1)
    monkeypatch.setattr(pretrain, "CHECKPOINT_EVERY_S", 999)
    monkeypatch.setattr(pretrain, "_save", saved)
    pretrain.pretrain(FEW, tmp_path / "stopped", ranks=1)
    torch.set_num_threads(threads)
    whole, stopped = (tmp_path / name / pretrain.WEIGHTS for name in ("whole", "stopped"))
    assert whole.read_bytes() == stopped.read_bytes()
