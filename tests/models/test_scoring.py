"""Scores, losses, metrics and schedule against loops and closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.losses import asymmetric_loss, bce_loss, loss_on_cosines, ranking_loss
from models.schedule import learning_rate
from models.scoring import (
    PackedTokens,
    dense_zero_shot_scores,
    global_scores,
    local_scores,
    merged_scores,
    packed_local_scores,
)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


def local(dense: torch.Tensor, prompt: torch.Tensor, kappa: float) -> float:
    cosines = [cosine(position, prompt) for position in dense]
    weights = [math.exp(kappa * c) for c in cosines]
    return sum(w * c for w, c in zip(weights, cosines, strict=True)) / sum(weights)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.manual_seed(seed))


def test_scores_are_the_sums_they_stand_for() -> None:
    features, dense, prompts = normal(3, 5), normal(3, 4, 5, seed=1), normal(2, 5, seed=2)
    of_global, of_local = global_scores(features, prompts), local_scores(dense, prompts, 40.0)
    zero_shot = dense_zero_shot_scores(dense, prompts, 100.0)
    for i in range(3):
        for c in range(2):
            assert float(of_global[i, c]) == pytest.approx(cosine(features[i], prompts[c]))
            assert float(of_local[i, c]) == pytest.approx(local(dense[i], prompts[c], 40.0))
            assert float(zero_shot[i, c]) == pytest.approx(local(dense[i], prompts[c], 100.0))
    torch.testing.assert_close(merged_scores(of_global, of_local), 0.5 * of_global + 0.5 * of_local)


@settings(max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    is_projected=st.booleans(),
    kappa=st.sampled_from([1.0, 50.0, 400.0]),
)
def test_packed_scores_are_the_padded_ones(
    lengths: list[int], is_projected: bool, kappa: float
) -> None:
    total = sum(lengths)
    hidden, projection = normal(total, 6), normal(6, 6, seed=3)
    projected = hidden if is_projected else hidden @ projection
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    given = None if is_projected else projection
    packed = PackedTokens(hidden, offsets, projected.norm(dim=-1), given)
    prompts = normal(3, 6, seed=4).requires_grad_()
    found = packed_local_scores(packed, prompts, kappa)
    expected = torch.cat(
        [local_scores(part[None], prompts, kappa) for part in projected.split(lengths)]
    )
    torch.testing.assert_close(found, expected)
    weight = normal(*found.shape, seed=5)
    (of_found,) = torch.autograd.grad((found * weight).sum(), prompts)
    (of_expected,) = torch.autograd.grad((expected * weight).sum(), prompts)
    torch.testing.assert_close(of_found, of_expected)


@settings(max_examples=30)
@given(rows=st.integers(1, 5), classes=st.integers(1, 6), seed=st.integers(0, 99))
def test_ranking_loss_is_the_sum_over_pairs(rows: int, classes: int, seed: int) -> None:
    scores, labels = normal(rows, classes, seed=seed), normal(rows, classes, seed=seed + 1) > 0.3
    expected = 0.0
    for r in range(rows):
        for i in range(classes):
            for j in range(classes):
                if labels[r, i] and not labels[r, j]:
                    pair = 1.0 - 4.0 * float(scores[r, i]) + 4.0 * float(scores[r, j])
                    expected += max(0.0, pair)
    assert float(ranking_loss(scores, labels)) == pytest.approx(expected / rows)


def test_bce_and_asl_are_their_equations() -> None:
    logits, labels = 3 * normal(4, 3), normal(4, 3, seed=1) > 0
    bce, asl = 0.0, 0.0
    for logit, label in zip(logits.flatten().tolist(), labels.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-logit))
        n = min(1 - p + 0.05, 1)
        bce -= math.log(p) if label else math.log(1 - p)
        asl -= (1 - p) * math.log(p) if label else (1 - n) ** 2 * math.log(n)
    assert float(bce_loss(logits, labels)) == pytest.approx(bce / 12)
    assert float(asymmetric_loss(logits, labels)) == pytest.approx(asl / 4)


def test_losses_by_name_take_scaled_cosines() -> None:
    cosines, labels = normal(4, 3).tanh(), normal(4, 3, seed=1) > 0
    found = {
        name: float(loss_on_cosines(name, margin=0.5, scale=7.0)(cosines, labels))
        for name in ("ranking", "bce", "asl")
    }
    assert found == {
        "ranking": float(ranking_loss(cosines, labels, margin=0.5, scale=7.0)),
        "bce": float(bce_loss(7 * cosines, labels)),
        "asl": float(asymmetric_loss(7 * cosines, labels)),
    }


@pytest.mark.parametrize("epochs", [1, 2, 8, 20])
def test_learning_rate_is_the_public_schedulers_epoch_by_epoch(epochs: int) -> None:
    """Dassl's: one constant epoch, then torch's cosine, which is stepped from its own start."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], lr=0.1)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=epochs)
    expected = [1e-5]
    for _ in range(1, epochs):
        expected.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        cosine.step()
    rates = [learning_rate(epoch, epochs=epochs, base=0.1) for epoch in range(epochs)]
    assert rates == pytest.approx(expected)


def test_an_unknown_label_adds_nothing_to_a_loss() -> None:
    generator = torch.Generator().manual_seed(4)
    scores = torch.randn(6, 5, generator=generator).double()
    labels = torch.rand(6, 5, generator=generator) < 0.4
    known = torch.rand(6, 5, generator=generator) < 0.6
    ranked, asl = 0.0, 0.0
    for row in range(6):
        here = known[row]
        shown = labels[row][here]
        ranked += float(ranking_loss(scores[row][here][None], shown[None], scale=1.0))
        asl += float(asymmetric_loss(scores[row][here][None], shown[None]))
    shown = labels & known
    assert float(ranking_loss(scores, shown, scale=1.0, known=known)) == pytest.approx(ranked / 6)
    assert float(asymmetric_loss(scores, shown, known=known)) == pytest.approx(asl / 6)
