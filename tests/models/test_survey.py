"""Samples are probability samples, shares are unbiased, and intervals hold what they say."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from models.survey import Sample, draw_sample, ratio

Matrices = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def world(images: int, classes: int, shown: float, strength: float) -> Matrices:
    """Scores, tags and truth [N, C] of images that show `shown` classes on average."""
    generator = torch.Generator().manual_seed(1)
    common = torch.rand(classes, generator=generator) ** 2 * 2 + 0.2
    rates = (common / common.sum() * shown).clamp(max=0.9)
    truth = (torch.rand(images, classes, generator=generator) < rates).int()
    scores = torch.randn(images, classes, generator=generator) + strength * truth
    scores = (scores - scores.mean(dim=0)) / scores.std(dim=0)
    tags = (scores > scores.flatten().quantile(1 - shown / classes)).int()
    return scores, tags, truth


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("images", "classes", "shown", "strength"),
    [(600, 72, 2.5, 4.5), (600, 72, 2.5, 2.0), (100, 12, 1.2, 2.0), (5000, 20, 0.3, 3.0)],
)
def test_intervals_hold_the_truth_in_at_least_90_of_100_markings(
    images: int, classes: int, shown: float, strength: float
) -> None:
    scores, tags, truth = world(images, classes, shown, strength)
    right = (tags * truth).sum(dim=1)
    for whole in (tags.sum(dim=1), truth.sum(dim=1)):
        exact = float(right.sum() / whole.sum())
        held, total = 0, 0.0
        for seed in range(100):
            sample = draw_sample(scores.max(dim=1).values, tags.sum(dim=1), 60, generator(seed))
            found = ratio(sample, right[sample.rows], whole[sample.rows])
            assert found is not None
            held += found.low <= exact <= found.high
            total += found.value
        assert held >= 90
        assert total / 100 == pytest.approx(exact, abs=0.03)


def test_every_image_is_drawn_as_often_as_its_weight_says() -> None:
    scores, tags, _ = world(90, 6, 0.5, 3.0)
    sureness, given_ = scores.max(dim=1).values, tags.sum(dim=1)
    drawn, weights = torch.zeros(90), torch.zeros(90, dtype=torch.float64)
    for seed in range(2000):
        sample = draw_sample(sureness, given_, 20, generator(seed))
        assert len(sample.rows.unique()) == 20
        drawn[sample.rows] += 1
        weights[sample.rows] = sample.weights()
    # five standard deviations of a share of 2,000 draws
    assert float((drawn / 2000 - 1 / weights).abs().max()) < 5 * 0.5 / 2000**0.5
    # half of the mass is spread evenly, so no weight is above twice the mean (and a stratum's rest)
    assert float(weights.max()) < 2.5 * 90 / 20


@settings(max_examples=150)
@given(
    images=st.integers(1, 40),
    count=st.integers(1, 50),
    marked=st.integers(1, 50),
    seed=st.integers(0, 99),
)
def test_any_sample_and_any_beginning_of_it_adds_up(
    images: int, count: int, marked: int, seed: int
) -> None:
    sureness = torch.rand(images, generator=generator(seed))
    tags = torch.randint(0, 3, (images,), generator=generator(seed))
    sample = draw_sample(sureness, tags, count, generator(seed))
    assert len(sample.rows) == min(count, images)
    assert len(sample.rows.unique()) == len(sample.rows)
    part = sample.only(torch.arange(min(marked, len(sample.rows))))
    for each in (sample, part):
        assert int(each.sizes.sum()) == images
        assert float(each.weights().sum()) == pytest.approx(images)
    wholes = tags[part.rows]
    found = ratio(part, (wholes > 0).int(), wholes)
    if found:
        assert 0 <= found.low <= found.value <= found.high <= 1
        if len(part.rows) == images:
            assert found.low == found.high == found.value


def test_a_simple_sample_has_the_textbooks_interval() -> None:
    """One stratum, one tag an image, next to nothing drawn: Clopper and Pearson's own."""
    sample = Sample(torch.arange(40), torch.zeros(40, dtype=torch.long), torch.tensor([10**9]))
    ones = torch.ones(40)
    for right in (0, 40):
        found = ratio(sample, (torch.arange(40) < right).int(), ones)
        assert found is not None
        low = beta.ppf(0.025, right, 41 - right) if right else 0
        high = beta.ppf(0.975, right + 1, 40 - right) if right < 40 else 1
        assert (found.low, found.high) == pytest.approx((low, high))
    found = ratio(sample, (torch.arange(40) < 30).int(), ones)
    assert found is not None
    assert found.value == 0.75
    # the variance divides by n - 1, so the interval is that of 39 marks
    assert found.low == pytest.approx(beta.ppf(0.025, 0.75 * 39, 0.25 * 39 + 1))
    assert found.high == pytest.approx(beta.ppf(0.975, 0.75 * 39 + 1, 0.25 * 39))


def test_nothing_to_tell_from_is_nothing() -> None:
    sample = Sample(torch.arange(3), torch.zeros(3, dtype=torch.long), torch.tensor([30]))
    assert ratio(sample, torch.zeros(3), torch.zeros(3)) is None
