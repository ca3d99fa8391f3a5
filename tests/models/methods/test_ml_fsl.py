"""Label propagation, prototypes and the label count are those of plain loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
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


@given(
    queries=st.integers(1, 6),
    shots=st.integers(1, 5),
    beta=st.floats(0.5, 30.0),
    seed=st.integers(0, 999),
)
def test_propagation_is_the_fixed_point_that_loops_reach(
    queries: int, shots: int, beta: float, seed: int
) -> None:
    nodes = unit(queries + shots, 5, seed).tolist()
    labels = torch.rand(shots, 3, generator=torch.Generator().manual_seed(seed)) < 0.5
    rows = [[float(v) / max(sum(row), 1) for v in row] for row in labels.tolist()]
    # rows of T: no node is its own neighbour, and each row sums to 1
    table = []
    for one in range(queries):
        weights = [
            0.0
            if other == one
            else math.exp(
                beta * (sum(a * b for a, b in zip(nodes[one], nodes[other], strict=True)) - 1)
            )
            for other in range(queries + shots)
        ]
        table.append([weight / sum(weights) for weight in weights])
    transitions = np.array(table)
    inverse = np.linalg.inv(np.eye(queries) - transitions[:, :queries])
    expected = inverse @ transitions[:, queries:] @ np.array(rows)
    whole = torch.tensor(nodes, dtype=torch.float64)
    found = propagated(
        whole[:queries], whole[queries:], torch.tensor(rows, dtype=torch.float64), beta
    )
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-9)


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
