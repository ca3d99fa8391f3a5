"""Label propagation, prototypes and the label count are those of plain loops."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.backbone import ImageFeatures
from models.methods.ml_fsl import (
    COUNTS,
    HIDDEN,
    MLFSL,
    compared,
    label_counts,
    propagated,
    voted,
)


def unit(rows: int, dim: int, seed: int) -> torch.Tensor:
    drawn = torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)).double()
    return torch.nn.functional.normalize(drawn, dim=-1)


def solved(rows: list[list[Fraction]], right: list[list[Fraction]]) -> list[list[Fraction]]:
    """Gauss-Jordan in fractions: no rounding, however nearly singular."""
    count = len(rows)
    whole = [[*row, *of_row] for row, of_row in zip(rows, right, strict=True)]
    for column in range(count):
        whole[column] = [value / whole[column][column] for value in whole[column]]
        for other in range(count):
            if other != column:
                factor = whole[other][column]
                pairs = zip(whole[other], whole[column], strict=True)
                whole[other] = [value - factor * of_pivot for value, of_pivot in pairs]
    return [row[count:] for row in whole]


def in_fractions(
    nodes: torch.Tensor, labels: torch.Tensor, queries: int, beta: float
) -> list[list[float]]:
    """(I - T_uu)^-1 T_ul Y of affinities as floats, then exactly."""
    table = []
    for one in range(queries):
        cosines = (nodes @ nodes[one]).tolist()
        weights = [
            Fraction(0) if other == one else Fraction(math.exp(beta * (cosine - 1)))
            for other, cosine in enumerate(cosines)
        ]
        table.append([weight / sum(weights) for weight in weights])
    shares = [[Fraction(value) for value in row] for row in labels.tolist()]
    right = [
        [
            sum((row[queries + k] * shares[k][c] for k in range(len(shares))), Fraction(0))
            for c in range(labels.shape[1])
        ]
        for row in table
    ]
    left = [[Fraction(int(i == j)) - table[i][j] for j in range(queries)] for i in range(queries)]
    return [[float(value) for value in row] for row in solved(left, right)]


@settings(deadline=None)
@given(
    queries=st.integers(1, 6),
    shots=st.integers(1, 5),
    beta=st.floats(0.5, 300.0),
    seed=st.integers(0, 999),
)
def test_propagation_is_the_fixed_point_in_fractions(
    queries: int, shots: int, beta: float, seed: int
) -> None:
    nodes = unit(queries + shots, 5, seed)
    shown = torch.rand(shots, 3, generator=torch.Generator().manual_seed(seed)) < 0.5
    labels = shown.double() / shown.sum(dim=1, keepdim=True).clamp(min=1)
    expected = in_fractions(nodes, labels, queries, beta)
    found = propagated(nodes[:queries], nodes[queries:], labels, beta)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-300)


def test_queries_far_from_every_shot_keep_their_digits() -> None:
    # two queries of one spot, the shot behind them: I - T_uu is singular in floats
    nodes = torch.tensor([[1.0, 0.0], [1.0, 1e-9], [-1.0, 0.0]], dtype=torch.float64)
    labels = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    found = propagated(nodes[:2], nodes[2:], labels, 30.0)
    torch.testing.assert_close(found, labels.expand(2, 2))


def state_of(shots: torch.Tensor, labels: torch.Tensor, dim: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    shown = (labels == 1).double()

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).double()

    return {
        "supports": shots,
        "labels": shown / shown.sum(dim=1, keepdim=True).clamp(min=1),
        "prototypes": shown.T @ shots / shown.sum(dim=0)[:, None].clamp(min=1),
        "voters": shots,
        "voters/count": label_counts(labels),
        "supports/mean": shots.mean(dim=0),
        "count/query.weight": drawn(HIDDEN, dim),
        "count/query.bias": drawn(HIDDEN),
        "count/support.weight": drawn(HIDDEN, dim),
        "count/mean.weight": drawn(HIDDEN, dim),
        "count/out.weight": drawn(COUNTS, HIDDEN),
        "count/out.bias": drawn(COUNTS),
    }


LABELS = torch.tensor([[1, 0, 1], [0, 1, 0], [1, -1, 0], [0, 0, 0]], dtype=torch.int8)


def test_an_image_alone_is_an_episode_of_one_query() -> None:
    shots, queries = unit(4, 6, 0), unit(5, 6, 1)
    state, method = state_of(shots, LABELS, 6), MLFSL(MLFSL.Settings(beta=7.0))
    features = ImageFeatures(3 * queries, queries, queries[:, None])
    found = method.score_images(state, features, 1.0)["merged"]
    for row, query in enumerate(queries):
        expected = propagated(query[None], shots, state["labels"], 7.0)[0]
        torch.testing.assert_close(found[row], expected)


def test_a_set_taken_together_is_one_episode() -> None:
    shots, queries = unit(4, 6, 0), unit(9, 6, 1)
    method = MLFSL(MLFSL.Settings(beta=7.0, together=100))
    features = ImageFeatures(queries, queries, queries[:, None])
    state = method.for_set(state_of(shots, LABELS, 6), [features], 1.0)
    expected = propagated(queries, shots, state["labels"], 7.0)
    found = method.score_images(state, features, 1.0)["merged"]
    torch.testing.assert_close(found, expected)


def test_prototypes_are_means_and_scores_a_softmax_of_squared_distances() -> None:
    shots, queries = unit(4, 6, 0), unit(3, 6, 1)
    state = state_of(shots, LABELS, 6)
    method = MLFSL(MLFSL.Settings(head="prototypes"))
    features = ImageFeatures(queries, queries, queries[:, None])
    found = method.score_images(state, features, 1.0)["merged"].tolist()
    for row, query in zip(found, queries.tolist(), strict=True):
        distances = []
        for column in range(3):
            members = [shots[k].tolist() for k in range(4) if LABELS[k, column] == 1]
            mean = [sum(each[i] for each in members) / len(members) for i in range(6)]
            distances.append(sum((a - b) ** 2 for a, b in zip(query, mean, strict=True)))
        total = sum(math.exp(-distance) for distance in distances)
        assert row == pytest.approx([math.exp(-each) / total for each in distances])


def test_the_count_is_what_most_shots_say() -> None:
    shots, queries = unit(4, 6, 0), unit(20, 6, 1)
    state = state_of(shots, LABELS, 6)
    assert state["voters/count"].tolist() == [2, 1, -1, 0]
    whole = torch.cat(
        [state[f"count/{name}.weight"] for name in ("query", "support", "mean")], dim=1
    )
    for row, query in enumerate(queries):
        votes = []
        for number in (0, 1, 3):
            inputs = torch.cat([query, shots[number], shots.mean(dim=0)])
            hidden = (whole @ inputs + state["count/query.bias"]).relu()
            sums = state["count/out.weight"] @ hidden + state["count/out.bias"]
            votes.append(max(int(sums.argmax()) - int(state["voters/count"][number]), 1))
        expected = min(set(votes), key=lambda vote: (-votes.count(vote), vote))
        assert int(voted(query[None], state)) == expected, row
    logits = compared(queries, shots, state["supports/mean"], state)
    assert logits.shape == (20, 4, COUNTS)


def test_counted_scores_are_those_of_as_many_classes_as_the_count_says() -> None:
    shots, queries = unit(4, 6, 0), unit(20, 6, 1)
    state = state_of(shots, LABELS, 6)
    features = ImageFeatures(queries, queries, queries[:, None])
    found = MLFSL().score_images(state, features, 1.0)
    kept = (found["counted"] > 0).sum(dim=1)
    assert kept.equal(voted(queries, state).clamp(max=3))
    assert (found["counted"] <= found["merged"]).all()
