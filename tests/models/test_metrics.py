"""AP, F1 and the bootstrap against scikit-learn, counting by hand, and resampling by copying."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    precision_recall_curve,
    precision_score,
    recall_score,
)

from models.metrics import (
    average_precisions,
    best_thresholds,
    bootstrap_maps,
    f1_scores,
    interval,
    mean_average_precision,
    mean_precision_at_recall,
    resample_weights,
    top_decisions,
    weighted_average_precisions,
)


def made(
    images: int, classes: int, seed: int, *, levels: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores (with ties if there are few levels) and labels 1, 0, -1."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(images, classes, generator=generator, dtype=torch.float64)
    if levels is not None:
        scores = (scores * levels).round()
    labels = torch.randint(-1, 2, (images, classes), generator=generator, dtype=torch.int8)
    return scores, labels


def scikit(
    scores: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None
) -> float:
    known = labels >= 0
    if not (labels == 1).any():
        return float("nan")
    chosen = None if weights is None else weights[known].numpy()
    return float(
        average_precision_score(labels[known].numpy(), scores[known].numpy(), sample_weight=chosen)
    )


@settings(max_examples=40)
@given(
    images=st.integers(1, 40), seed=st.integers(0, 9999), levels=st.sampled_from([None, 2, 1, 0])
)
def test_average_precision_is_scikit_learns_with_ties_and_ignored_images(
    images: int, seed: int, levels: int | None
) -> None:
    scores, labels = made(images, 4, seed, levels=levels)
    found = average_precisions(scores, labels)
    expected = [scikit(scores[:, c], labels[:, c]) for c in range(4)]
    assert found.tolist() == pytest.approx(expected, nan_ok=True)
    with_positive = [value for value in expected if not math.isnan(value)]
    if with_positive:
        mean = 100 * sum(with_positive) / len(with_positive)
        assert mean_average_precision(found) == pytest.approx(mean)


def test_average_precision_counted_by_hand() -> None:
    # ranks: positive, ignored, negative, positive -> (1/1 + 2/3) / 2
    scores = torch.tensor([[0.9], [0.8], [0.7], [0.6]])
    labels = torch.tensor([[1], [-1], [0], [1]])
    assert float(average_precisions(scores, labels)) == pytest.approx((1 + 2 / 3) / 2)


def test_the_order_of_the_file_has_no_say() -> None:
    labels = torch.tensor([[0, 1], [1, 0]])
    assert average_precisions(torch.zeros(2, 2), labels).tolist() == [0.5, 0.5]


def test_scores_without_order_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        average_precisions(torch.tensor([[float("nan")]]), torch.tensor([[1]]))


@settings(max_examples=30)
@given(images=st.integers(2, 30), seed=st.integers(0, 999), levels=st.sampled_from([None, 1]))
def test_a_weight_counts_an_image_that_often(images: int, seed: int, levels: int | None) -> None:
    scores, labels = made(images, 3, seed, levels=levels)
    weights = resample_weights(images, 4, torch.Generator().manual_seed(seed))
    assert weights.sum(dim=0).tolist() == [images] * 4
    found = weighted_average_precisions(scores, labels, weights)
    for resample in range(4):
        rows = torch.arange(images).repeat_interleave(weights[:, resample].long())
        expected = average_precisions(scores[rows], labels[rows])
        torch.testing.assert_close(found[resample], expected, equal_nan=True)


def test_the_bootstrap_is_seeded_paired_and_covers_the_truth() -> None:
    # of many samples of one population, about 95 % of the intervals hold the population's mAP
    scores, labels = made(4000, 3, 0)
    labels = (labels == 1).to(torch.int8)
    scores = scores + 1.5 * labels
    truth = mean_average_precision(average_precisions(scores, labels))
    inside = 0
    for sample in range(60):
        rows = torch.randperm(4000, generator=torch.Generator().manual_seed(sample))[:200]
        maps = bootstrap_maps({"a": scores[rows]}, labels[rows], resamples=200, seed=sample)["a"]
        estimate = mean_average_precision(average_precisions(scores[rows], labels[rows]))
        low, high = interval(maps, estimate)
        inside += low <= truth <= high
    assert 50 <= inside <= 60
    both = bootstrap_maps({"a": scores, "b": scores}, labels, resamples=20, seed=1)
    assert both["a"].equal(both["b"])
    assert both["a"].equal(bootstrap_maps({"x": scores}, labels, resamples=20, seed=1)["x"])
    assert not both["a"].equal(bootstrap_maps({"x": scores}, labels, resamples=20, seed=2)["x"])


def test_the_interval_is_the_middle_95_percent_around_the_estimate() -> None:
    assert interval(torch.arange(201).float(), 100.0) == pytest.approx((5.0, 195.0))
    assert interval(torch.arange(201).float(), 90.0) == pytest.approx((-5.0, 185.0))


@settings(max_examples=30)
@given(images=st.integers(2, 30), seed=st.integers(0, 999))
def test_f1_is_scikit_learns(images: int, seed: int) -> None:
    scores, labels = made(images, 4, seed)
    labels = labels.clamp(min=0)
    labels[0] = 1  # every class has a positive, as scikit-learn's averages need
    decided = scores > 0.3
    truth, made_ = labels.numpy(), decided.numpy().astype(np.int8)
    precision = precision_score(truth, made_, average="macro", zero_division=0)
    recall = recall_score(truth, made_, average="macro", zero_division=0)
    found = f1_scores(decided, labels)
    total = precision + recall
    assert found.per_class == pytest.approx(200 * precision * recall / total if total else 0)
    micro = f1_score(truth, made_, average="micro", zero_division=0)
    assert found.overall == pytest.approx(100 * micro)


def test_f1_leaves_ignored_images_and_absent_classes_out() -> None:
    decided = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]])
    labels = torch.tensor([[1, 1, 0], [-1, 0, 0], [0, 1, 0]])
    found = f1_scores(decided, labels)
    # class 0: one right of two (the ignored one is none); class 1: two of two; class 2: no positive
    assert found.per_class == pytest.approx(100 * 2 * 0.75 * 1.0 / 1.75)
    # three right of five decisions, one of which is for the absent class, and none missed
    assert found.overall == pytest.approx(100 * 2 * 0.6 * 1.0 / 1.6)


def test_top_decisions() -> None:
    scores = torch.tensor([[0.1, 0.4, 0.3, 0.2], [4.0, 3.0, 2.0, 1.0]])
    assert top_decisions(scores, 2).int().tolist() == [[0, 1, 1, 0], [1, 1, 0, 0]]
    assert top_decisions(scores, 9).all()


@settings(max_examples=30)
@given(images=st.integers(2, 30), seed=st.integers(0, 999), levels=st.sampled_from([None, 1]))
def test_precision_at_recall_is_the_best_of_scikit_learns_curve(
    images: int, seed: int, levels: int | None
) -> None:
    scores, labels = made(images, 3, seed, levels=levels)
    labels[0] = 1
    expected = np.zeros(11)
    for c in range(3):
        known = labels[:, c] >= 0
        precision, recall, _ = precision_recall_curve(
            labels[known, c].numpy(), scores[known, c].numpy()
        )
        # scikit-learn's last point (recall 0, precision 1) stands for no image at all
        for at, level in enumerate(np.linspace(0, 1, 11)):
            expected[at] += precision[:-1][recall[:-1] >= level - 1e-9].max() / 3
    found = mean_precision_at_recall(scores, labels, levels=11)
    assert found.tolist() == pytest.approx(expected.tolist())


@settings(max_examples=30)
@given(images=st.integers(1, 20), seed=st.integers(0, 999), levels=st.sampled_from([None, 1, 0]))
def test_no_threshold_has_a_higher_f1(images: int, seed: int, levels: int | None) -> None:
    scores, labels = made(images, 3, seed, levels=levels)
    found = best_thresholds(scores, labels)
    for c in range(3):
        positive = (labels[:, c] == 1).numpy()
        if not positive.any():
            assert math.isnan(float(found[c]))
            continue
        tried = [*scores[:, c].tolist(), float(scores[:, c].min()) - 1]
        best = max(f1_score(positive, (scores[:, c] > each).numpy()) for each in tried)
        assert f1_score(positive, (scores[:, c] > found[c]).numpy()) == pytest.approx(best)
