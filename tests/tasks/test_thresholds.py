"""Thresholds carried from captions to images, and the captions that they are chosen on."""

import pytest
import torch

from models.metrics import f1_scores
from tasks.profile import TrainSettings
from tasks.thresholds import deviations, image_thresholds
from tasks.train import split_captions


def test_held_out_captions_are_not_trained_on_and_templates_always_are() -> None:
    settings = TrainSettings(held_out=0.1)
    trained, held_out = split_captions(120, 20, settings, seed=3)
    assert len(held_out) == 10
    assert sorted([*trained.tolist(), *held_out.tolist()]) == list(range(120))
    assert held_out.max() < 100
    assert set(range(100, 120)) <= set(trained.tolist())
    everything, nothing = split_captions(120, 20, TrainSettings(held_out=0), seed=3)
    assert everything.tolist() == list(range(120))
    assert len(nothing) == 0


def test_fewer_captions_are_a_subset_of_more_and_none_is_held_out() -> None:
    few, held_out = split_captions(120, 20, TrainSettings(captions=10), seed=3)
    more, same = split_captions(120, 20, TrainSettings(captions=40), seed=3)
    assert held_out.tolist() == same.tolist()
    assert len(few) == 30
    assert len(more) == 60
    assert set(few.tolist()) < set(more.tolist())
    assert not set(more.tolist()) & set(held_out.tolist())
    other, _ = split_captions(120, 20, TrainSettings(captions=10), seed=4)
    assert other.tolist() != few.tolist()


def test_thresholds_survive_another_mean_and_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(2000, 3, generator=generator) < torch.tensor([0.1, 0.3, 0.5])
    scores = labels * 6.0 + torch.randn(2000, 3, generator=generator)
    # images score lower and closer together than captions, as with CLIP
    images = scores * torch.tensor([0.01, 0.02, 0.03]) + torch.tensor([0.1, 0.2, 0.3])
    found = image_thresholds(images, deviations(scores, labels))
    quality = f1_scores(images > found, labels)
    assert quality.overall > 99
    assert quality.overall == pytest.approx(f1_scores(scores > 3.0, labels).overall, abs=0.5)


def test_a_class_that_no_caption_names_takes_the_median() -> None:
    scores = torch.tensor([[1.0, 1.0, 1.0, 5.0], [0.0, 0.0, 0.0, 4.0], [0.0, 0.5, 0.0, 9.0]])
    labels = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]])
    found = deviations(scores, labels)
    assert float(found[3]) == pytest.approx(float(found[:3].median()))
