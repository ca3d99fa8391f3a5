"""A training run that stops after any step goes on to the same prompts, bit for bit."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from tasks import train
from tasks.backbone import load_backbone
from tasks.encode import write_features
from tasks.features import CaptionFeatures
from tasks.profile import TrainSettings
from tasks.vocabulary import load_vocabulary

ROOT = Path(__file__).parents[2]
SETTINGS = TrainSettings(contexts=2, epochs=3, batch=4, learning_rate=0.1)


class StoppedError(Exception):
    pass


def run(folder: Path, features: Path, stop_at: int | None) -> bytes:
    vocabulary = load_vocabulary(ROOT / "demo" / "vocabulary.csv")
    config = str(ROOT / "demo" / "tiny-clip.json")
    loaded = load_backbone(config, "", seed=0, resolution=None, device="cpu")
    captions = CaptionFeatures(features, vocabulary.classes)
    calls = 0

    def on_epoch(epoch: int, figures: Mapping[str, float]) -> None:
        pass

    original = captions.batch

    def batch(rows: torch.Tensor, device: torch.device) -> object:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise StoppedError
        return original(rows, device)

    captions.batch = batch  # type: ignore[method-assign,assignment]
    folder.mkdir(exist_ok=True)
    train.write_prompts(
        captions, vocabulary, loaded.backbone, SETTINGS, folder, seed=3, card={}, on_epoch=on_epoch
    )
    return (folder / train.PROMPTS).read_bytes() + (folder / train.HISTORY).read_bytes()


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    config = str(ROOT / "demo" / "tiny-clip.json")
    loaded = load_backbone(config, "", seed=0, resolution=None, device="cpu")
    texts = ["A dog.", "Two cats near a house in the old town.", "A boat", "trees and a car"] * 3
    classes = [["dog"], ["cat", "house"], ["boat"], ["tree", "car"]] * 3
    ids = [str(i) for i in range(12)]
    table = pa.table({"caption_id": ids, "text": texts, "classes": classes})
    write_features(table, loaded.backbone, folder)
    return folder


def test_features_are_the_towers_own(features: Path) -> None:
    vocabulary = load_vocabulary(ROOT / "demo" / "vocabulary.csv")
    captions = CaptionFeatures(features, vocabulary.classes)
    config = str(ROOT / "demo" / "tiny-clip.json")
    loaded = load_backbone(config, "", seed=0, resolution=None, device="cpu")
    batch = captions.batch(torch.tensor([1]), torch.device("cpu"))
    tokens = loaded.backbone.tokenize(["Two cats near a house in the old town."])
    expected = loaded.backbone.clip.encode_text(tokens, normalize=True)
    torch.testing.assert_close(batch.global_, expected, rtol=2e-3, atol=2e-3)
    hidden = loaded.backbone.encode_text(tokens)[0, : int(loaded.backbone.lengths(tokens)[0])]
    torch.testing.assert_close(batch.tokens.hidden.float(), hidden, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(batch.tokens.norms, loaded.backbone.project(hidden).norm(dim=-1))
    shown = [c for c, on in zip(vocabulary.classes, batch.labels[0].tolist(), strict=True) if on]
    assert shown == ["cat", "house"]


@pytest.mark.parametrize("stop_at", [1, 2, 4, 8, 9])
def test_a_stopped_training_goes_on(
    tmp_path: Path, features: Path, stop_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole", features, None)
    monkeypatch.setattr(train, "CHECKPOINT_EVERY_S", -1.0)
    with pytest.raises(StoppedError):
        run(tmp_path / "stopped", features, stop_at)
    assert run(tmp_path / "stopped", features, None) == whole


def test_training_lowers_the_loss(tmp_path: Path, features: Path) -> None:
    history = run(tmp_path / "whole", features, None).decode("utf-8", "ignore")
    losses = [
        float(line.split(":")[1].strip(" ,"))
        for line in history.splitlines()
        if "loss/train" in line
    ]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
