"""One training in a process of its own that kills itself (-9) before it reads a given batch."""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from models.examples import CaptionBatch
from models.method import Setup
from models.methods.tai_dpt import TaIDPT
from tasks.backbone.loading import load_backbone
from tasks.captions.features import CaptionFeatures
from tasks.labels.vocabulary import load_vocabulary
from tasks.methods import trainer
from tasks.methods.state import STATE, write_state

ROOT = Path(__file__).parents[3]
CONFIG = str(ROOT / "tests" / "small" / "tiny-clip.json")
VOCABULARY = load_vocabulary(ROOT / "tests" / "small" / "vocabulary.csv")
BACKBONE = load_backbone(CONFIG, "", seed=0, resolution=None, device="cpu").backbone
SETTINGS = TaIDPT.Settings(contexts=2, epochs=3, batch=4, learning_rate=0.1)


class Watched(CaptionFeatures):
    """Captions that call `at` when batch number `stop_at`, counted from 1, is asked for."""

    def __init__(self, folder: Path, stop_at: int | None, at: Callable[[], None]) -> None:
        super().__init__(folder, [folder], VOCABULARY.classes, BACKBONE)
        self._calls, self._stop_at, self._at = 0, stop_at, at

    def batch(self, rows: torch.Tensor, device: torch.device) -> CaptionBatch:
        self._calls += 1
        if self._calls == self._stop_at:
            self._at()
        return super().batch(rows, device)


def run(folder: Path, captions: CaptionFeatures, every_s: float = 60.0) -> bytes:
    """Bytes of the prompts and of the history."""
    folder.mkdir(exist_ok=True)
    state, history, _ = trainer.train(
        TaIDPT(SETTINGS).learner(Setup(BACKBONE, VOCABULARY.prompt_names, 3)),
        captions,
        torch.arange(len(captions)),
        folder,
        seed=3,
        device=BACKBONE.device,
        on_epoch=lambda epoch, figures: None,
        checkpoint_every_s=every_s,
    )
    write_state(state, {}, folder)
    trainer.finish(folder)
    return (folder / STATE).read_bytes() + json.dumps(history, indent=2).encode()


if __name__ == "__main__":
    features = Watched(
        Path(sys.argv[2]), int(sys.argv[3]), lambda: os.kill(os.getpid(), signal.SIGKILL)
    )
    # a checkpoint after each step
    run(Path(sys.argv[1]), features, -1.0)
