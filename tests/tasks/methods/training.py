"""One training in a process of its own that kills itself (-9) before it reads a given batch."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from models.tai_dpt import CaptionBatch
from tasks.backbone.loading import load_backbone
from tasks.captions.features import CaptionFeatures
from tasks.labels.vocabulary import load_vocabulary
from tasks.methods import trainer as train
from tasks.profile import TrainSettings

ROOT = Path(__file__).parents[3]
CONFIG = str(ROOT / "tests" / "small" / "tiny-clip.json")
VOCABULARY = ROOT / "tests" / "small" / "vocabulary.csv"
SETTINGS = TrainSettings(contexts=2, epochs=3, batch=4, learning_rate=0.1)


class Watched(CaptionFeatures):
    """Captions that call `at` when batch number `stop_at`, counted from 1, is asked for."""

    def __init__(self, folder: Path, stop_at: int | None, at: Callable[[], None]) -> None:
        super().__init__(folder, [folder], load_vocabulary(VOCABULARY).classes)
        self._calls, self._stop_at, self._at = 0, stop_at, at

    def batch(self, rows: torch.Tensor, device: torch.device) -> CaptionBatch:
        self._calls += 1
        if self._calls == self._stop_at:
            self._at()
        return super().batch(rows, device)


def run(folder: Path, captions: CaptionFeatures) -> bytes:
    """Bytes of the prompts and of the history."""
    loaded = load_backbone(CONFIG, "", seed=0, resolution=None, device="cpu")
    folder.mkdir(exist_ok=True)
    train.write_prompts(
        captions,
        load_vocabulary(VOCABULARY),
        loaded.backbone,
        SETTINGS,
        folder,
        seed=3,
        card={},
        on_epoch=lambda epoch, figures: None,
    )
    return (folder / train.PROMPTS).read_bytes() + (folder / train.HISTORY).read_bytes()


if __name__ == "__main__":
    # a checkpoint after each step
    train.CHECKPOINT_EVERY_S = -1.0  # type: ignore[misc]
    features = Watched(
        Path(sys.argv[2]), int(sys.argv[3]), lambda: os.kill(os.getpid(), signal.SIGKILL)
    )
    run(Path(sys.argv[1]), features)
