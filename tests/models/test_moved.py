"""Moved thresholds: better where the old ones were off, harmless where they were right."""

import torch

from models.metrics import f1_scores
from models.moved import moved_thresholds

CLASSES = 12


def world() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    truth = (torch.rand(2000, CLASSES, generator=generator) < 0.15).int()
    return torch.randn(2000, CLASSES, generator=generator) + 3 * truth, truth


def of1_after(offset: torch.Tensor) -> tuple[float, float]:
    """OF1 of all images before and after a move by 60 of them, thresholds `offset` from 1.6."""
    scores, truth = world()
    before, marked = 1.6 + offset.double(), torch.arange(60)
    after = moved_thresholds(
        scores[marked], truth[marked], torch.ones(60).double(), before, scores.std(dim=0).double()
    )
    return tuple(f1_scores(scores > t, truth).overall for t in (before, after))  # type: ignore[return-value]


def test_a_common_error_is_mended() -> None:
    for offset in (-1.5, 1.5):
        before, after = of1_after(torch.full((CLASSES,), offset))
        assert after > before + 10


def test_right_thresholds_stay_nearly_as_good() -> None:
    before, after = of1_after(torch.zeros(CLASSES))
    assert after > before - 2


def test_errors_of_single_classes_are_mended_in_part() -> None:
    offset = torch.zeros(CLASSES)
    offset[::3], offset[1::3] = -1.5, 1.5
    before, after = of1_after(offset)
    assert after > before + 5


def test_without_a_mark_nothing_moves() -> None:
    thresholds = torch.tensor([0.1, 0.2], dtype=torch.float64)
    scores = torch.rand(5, 2)
    for marks in (torch.zeros(5, 2), -torch.ones(5, 2)):
        moved = moved_thresholds(scores, marks, torch.ones(5), thresholds, torch.ones(2))
        assert torch.equal(moved, thresholds)
