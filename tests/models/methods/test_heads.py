"""CLOSE's and CoMC's heads against plain loops in float64, and the noise against its angle."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.adapters import linear_map, mean_shift, pairs_of
from models.backbone import ImageFeatures
from models.examples import SentenceBatch
from models.method import Setup
from models.methods.close import Close, head_scores
from models.methods.comc import CoMC
from models.noise import noise_std, noisy
from models.prompts import class_embeddings
from tests.models.conftest import small_backbone

BACKBONE = small_backbone()
NAMES = ("dog", "cat", "kite")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(normal(*shape, seed=seed), dim=-1)


def features(dim: int) -> ImageFeatures:
    return ImageFeatures(normal(2, dim), normal(2, dim, seed=1), normal(2, 4, dim, seed=2))


@pytest.mark.parametrize("dim", [128, 1024])
@pytest.mark.parametrize("cosine", [0.3, 0.67, 0.95])
def test_noise_turns_a_vector_by_its_angle(dim: int, cosine: float) -> None:
    clean = F.normalize(torch.randn(500, dim, generator=torch.Generator().manual_seed(1)), dim=-1)
    found = noisy(clean, cosine, torch.Generator().manual_seed(0))
    cosines = F.cosine_similarity(clean, found, dim=-1)
    assert float(cosines.mean()) == pytest.approx(cosine, abs=0.01)
    # CLOSE's and CoMC's own: 0.04 at d = 768 is 0.67, 0.1 at d = 1024 is 0.30
    assert noise_std(0.67, 768) == pytest.approx(0.04, abs=5e-4)
    assert noise_std(0.30, 1024) == pytest.approx(0.1, abs=1e-3)
    assert noisy(clean, 1.0, torch.Generator()).equal(clean)


def hinge(scores: list[float], labels: list[bool], margin: float, scale: float) -> float:
    return sum(
        max(0.0, margin - scale * (scores[i] - scores[j]))
        for i in range(len(scores))
        for j in range(len(scores))
        if labels[i] and not labels[j]
    )


def close_scores(state: dict[str, torch.Tensor], feature: torch.Tensor) -> list[float]:
    """By the equation, one class at a time."""
    f = feature / feature.norm()
    hidden = [
        max(0.0, float(row @ f) + float(bias))
        for row, bias in zip(state["inner"], state["bias"], strict=True)
    ]
    seen = f + sum((h * state["outer"][:, k] for k, h in enumerate(hidden)), torch.zeros_like(f))
    mean = sum(state["classes"]) / len(state["classes"])
    return [float(seen @ (row - mean)) for row in state["classes"]]


@pytest.mark.parametrize("hidden", [0, 5])
def test_close_scores_and_learns_as_its_equations_say(hidden: int) -> None:
    dim = BACKBONE.dim
    method = Close(Close.Settings(hidden=hidden, cosine=0.5, pull=0.3, scale=2.0, context=0.2))
    learner = method.learner(Setup(BACKBONE, NAMES, 1)).double()
    start = {name: value.clone() for name, value in learner.state().items()}
    assert start["classes"].equal(class_embeddings(BACKBONE, NAMES, ["a photo of a {}.".format]))
    with torch.no_grad():
        for number, parameter in enumerate(learner.parameters()):
            parameter.add_(0.3 * normal(*parameter.shape, seed=number))
    state = dict(learner.state())
    images = features(dim)
    for branch, rows in method.score_images(state, images, 6.0).items():
        for b in range(2):
            whole = images.pooled[b] / images.pooled[b].norm()
            of_global = close_scores(state, whole)
            positions = [p / p.norm() + 0.2 * whole for p in images.dense[b]]
            each = [close_scores(state, position) for position in positions]
            for c in range(3):
                column = [scores[c] for scores in each]
                weights = [math.exp(6.0 * score) for score in column]
                local = sum(w * s for w, s in zip(weights, column, strict=True)) / sum(weights)
                merged = local + method.settings.global_weight * of_global[c]
                expected = {"global": of_global[c], "local": local, "merged": merged}
                assert float(rows[b, c]) == pytest.approx(expected[branch])
    labels = torch.tensor([[True, False, False], [True, True, False]])
    batch = SentenceBatch(unit(2, dim, seed=9), labels)
    noise = noisy(batch.features, 0.5, torch.Generator().manual_seed(4))
    expected_loss = 0.3 * float((state["classes"] - start["classes"]).square().sum())
    expected_loss += 0.3 * float(state["outer"].square().sum())
    for row, truth in zip(noise, labels.tolist(), strict=True):
        expected_loss += hinge(close_scores(state, row), truth, 1.0, 2.0) / 2
    loss = learner.loss(batch, torch.Generator().manual_seed(4))
    assert float(loss.detach()) == pytest.approx(expected_loss)
    captions = method.score_captions(state, batch)
    assert captions is not None
    assert captions["merged"][0].tolist() == pytest.approx(close_scores(state, batch.features[0]))
    # before a step the hidden layer changes nothing
    first = head_scores(start, images.pooled)
    plain = head_scores({**start, "outer": torch.zeros(dim, hidden).double()}, images.pooled)
    torch.testing.assert_close(first, plain)


@pytest.mark.parametrize("pool", ["max", "softmax"])
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_comc_scores_and_learns_as_its_equations_say(pool: str, share: float) -> None:
    dim = BACKBONE.dim
    method = CoMC(CoMC.Settings.model_validate({"pool": pool, "map_weight": share, "start": 2.0}))
    learner = method.learner(Setup(BACKBONE, NAMES, 1)).double()
    state = {**learner.state(), "weight": normal(3, dim, seed=5)}
    images = features(dim)
    found = method.score_images(state, images, 6.0)

    def logits(feature: torch.Tensor) -> list[float]:
        f = feature / feature.norm()
        nearness = [math.exp(100.0 * float(f @ t)) for t in state["classes"]]
        mapped = sum(n * t for n, t in zip(nearness, state["classes"], strict=True))
        seen = (1 - share) * f + share * mapped / mapped.norm()
        return [float(seen @ row) for row in state["weight"]]

    for b in range(2):
        of_global = logits(images.pooled_plain[b])
        each = [logits(position) for position in images.dense[b]]
        for c in range(3):
            column = [scores[c] for scores in each]
            weights = [math.exp(6.0 * score) for score in column]
            soft = sum(w * s for w, s in zip(weights, column, strict=True)) / sum(weights)
            local = max(column) if pool == "max" else soft
            assert float(found["global"][b, c]) == pytest.approx(of_global[c])
            assert float(found["local"][b, c]) == pytest.approx(local)
            assert float(found["merged"][b, c]) == pytest.approx((of_global[c] + local) / 2)
    batch = SentenceBatch(unit(2, dim, seed=9), torch.tensor([[True, False, False]] * 2))
    noise = noisy(batch.features, method.settings.cosine, torch.Generator().manual_seed(4))
    rows = 2 * learner.state()["classes"]
    expected = sum(
        hinge([float(row @ w) for w in rows], truth, 1.0, 1.0) / 2
        for row, truth in zip(noise, batch.labels.tolist(), strict=True)
    )
    loss = learner.loss(batch, torch.Generator().manual_seed(4))
    assert float(loss.detach()) == pytest.approx(expected)


@pytest.mark.parametrize("count", [300, 20])
def test_adapters_are_least_squares_on_all_pairs(count: int) -> None:
    dim = 24
    texts = unit(count, dim, seed=3)
    images = F.normalize(texts @ normal(dim, dim, seed=4) + normal(dim, seed=5) * 0.3, dim=-1)
    pairs = pairs_of([(2 * texts[:7], images[:7]), (texts[7:], 3 * images[7:])])
    weight, bias = linear_map(pairs)
    # of centred vectors, as scikit-learn fits it; least norm where pairs are few
    centred = [(each - each.mean(dim=0)).numpy() for each in (texts, images)]
    expected = np.linalg.lstsq(*centred, rcond=1e-9)[0].T
    np.testing.assert_allclose(weight, expected, atol=1e-6)
    residual = images - (texts @ weight.T + bias)
    torch.testing.assert_close(residual.mean(dim=0), torch.zeros(dim, dtype=torch.float64))
    for other in (weight + 1e-3 * normal(dim, dim, seed=6), weight * 1.01):
        moved = images - (texts @ other.T + bias)
        assert moved.square().sum() >= residual.square().sum() - 1e-12
    one, shift = mean_shift(pairs)
    found = texts @ one.T + shift
    torch.testing.assert_close(found.mean(dim=0), images.mean(dim=0))
    torch.testing.assert_close(found - texts, shift.expand(count, -1))
    with pytest.raises(ValueError, match="no pair"):
        pairs_of([])


@pytest.mark.parametrize("kind", ["mean", "linear"])
def test_close_learns_on_adapted_captions(kind: str) -> None:
    dim = BACKBONE.dim
    pairs = pairs_of([(unit(40, dim, seed=1).float(), unit(40, dim, seed=2).float())])
    given: dict[str, Any] = {"adapter": kind, "cosine": 1.0, "pull": 0.0}
    learner = Close(Close.Settings(**given)).learner(Setup(BACKBONE, NAMES, pairs=pairs)).double()
    texts = unit(4, dim, seed=7)
    labels = torch.tensor([[True, False, False], [False, True, True], [False] * 3, [True] * 3])
    found = learner.loss(SentenceBatch(texts, labels), torch.Generator())
    weight, bias = mean_shift(pairs) if kind == "mean" else linear_map(pairs)
    state = dict(learner.state())
    total = 0.0
    for row, shown in zip(texts, labels.tolist(), strict=True):
        mapped = weight @ row + bias
        scores = close_scores(state, mapped / mapped.norm())
        total += hinge(scores, shown, 1.0, 4.0)
    assert float(found) == pytest.approx(total / len(texts), rel=1e-4)
    with pytest.raises(ValueError, match="there are none"):
        Close(Close.Settings(**given)).learner(Setup(BACKBONE, NAMES))
