"""Thresholds carried from captions to images, and the captions that they are chosen on."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.decisions import decision_rate, image_thresholds
from models.metrics import f1_scores
from tasks.methods.fit import split_captions
from tasks.settings import CaptionChoice


def test_held_out_captions_are_not_trained_on_and_templates_always_are() -> None:
    settings = CaptionChoice(held_out=0.1)
    trained, held_out = split_captions(120, 20, settings, seed=3)
    assert len(held_out) == 10
    assert sorted([*trained.tolist(), *held_out.tolist()]) == list(range(120))
    assert held_out.max() < 100
    assert set(range(100, 120)) <= set(trained.tolist())
    everything, nothing = split_captions(120, 20, CaptionChoice(held_out=0), seed=3)
    assert everything.tolist() == list(range(120))
    assert len(nothing) == 0


def test_fewer_captions_are_a_subset_of_more_and_none_is_held_out() -> None:
    few, held_out = split_captions(120, 20, CaptionChoice(most=10), seed=3)
    more, same = split_captions(120, 20, CaptionChoice(most=40), seed=3)
    assert held_out.tolist() == same.tolist()
    assert len(few) == 30
    assert len(more) == 60
    assert set(few.tolist()) < set(more.tolist())
    assert not set(more.tolist()) & set(held_out.tolist())
    other, _ = split_captions(120, 20, CaptionChoice(most=10), seed=4)
    assert other.tolist() != few.tolist()


def test_thresholds_survive_another_mean_and_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(2000, 3, generator=generator) < 0.3
    scores = labels * 6.0 + torch.randn(2000, 3, generator=generator)
    # images score lower and closer together than captions, as with CLIP
    images = scores * torch.tensor([0.01, 0.02, 0.03]) + torch.tensor([0.1, 0.2, 0.3])
    rate = decision_rate(scores, labels)
    assert rate == pytest.approx(float(labels.float().mean()), abs=0.01)
    found = image_thresholds(images, rate)
    quality = f1_scores(images > found, labels)
    assert quality.overall > 99
    assert quality.overall == pytest.approx(f1_scores(scores > 3.0, labels).overall, abs=0.5)


@settings(max_examples=25)
@given(images=st.integers(10, 40), seed=st.integers(0, 99), rate=st.floats(0, 1))
def test_as_large_a_share_lies_above_as_is_asked_for(images: int, seed: int, rate: float) -> None:
    scores = torch.randn(images, 3, generator=torch.Generator().manual_seed(seed))
    above = float((scores > image_thresholds(scores, rate)).double().mean())
    assert above == pytest.approx(rate, abs=1 / (3 * images) + 1e-9)
