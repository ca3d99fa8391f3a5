"""Tip-Adapter's logits and its choice by leave-one-out, against plain loops in float64."""

import math

import pytest
import torch
from sklearn.metrics import average_precision_score

from models.backbone import ImageFeatures
from models.examples import ImageBatch
from models.method import Setup
from models.methods.tip_adapter import (
    ALPHAS,
    BETAS,
    START,
    TipAdapter,
    TipAdapterF,
    TipLearner,
    leave_one_out,
)
from tests.models.conftest import small_backbone

NAMES = ("dog", "cat", "kite")


class Given:
    """All examples at once, as they are."""

    def __init__(self, features: ImageFeatures, labels: torch.Tensor) -> None:
        self.features, self.labels = features, labels

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: torch.Tensor, device: torch.device) -> ImageBatch:
        features = (self.features.pooled, self.features.pooled_plain, self.features.dense)
        return ImageBatch(ImageFeatures(*(each[rows] for each in features)), self.labels[rows])


def images(count: int, dim: int, seed: int = 0) -> ImageFeatures:
    pooled = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)).double()
    return ImageFeatures(pooled, pooled, pooled[:, None])


def cosine(a: list[float], b: list[float]) -> float:
    product = sum(x * y for x, y in zip(a, b, strict=True))
    return product / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(x * x for x in b))


def plain_logits(
    query: list[float],
    keys: list[list[float]],
    labels: list[list[int]],
    classes: list[list[float]],
    alpha: float,
    beta: float,
) -> list[float]:
    found = []
    for column, vector in enumerate(classes):
        shots = sum(row[column] == 1 for row in labels)
        cached = 0.0
        for key, row in zip(keys, labels, strict=True):
            if row[column] == 1:
                cached += math.exp(-beta * (1 - cosine(query, key))) / shots
        found.append(100 * cosine(query, vector) + alpha * cached)
    return found


def test_logits_are_those_of_plain_loops() -> None:
    backbone = small_backbone()
    shots, queries = images(7, backbone.dim), images(5, backbone.dim, seed=1)
    labels = torch.tensor(
        [[1, 0, 0], [1, 1, 0], [0, 1, 0], [-1, 1, 0], [0, 0, 0], [1, -1, 0], [-1, -1, -1]],
        dtype=torch.int8,
    )
    method = TipAdapter(TipAdapter.Settings(alpha=3.5, beta=2.0))
    state = method.fit(Setup(backbone, NAMES), Given(shots, labels))
    found = method.score_images(state, queries, 1.0)["merged"].tolist()
    for row, query in zip(found, queries.pooled.tolist(), strict=True):
        expected = plain_logits(
            query, shots.pooled.tolist(), labels.tolist(), state["classes"].tolist(), 3.5, 2.0
        )
        assert row == pytest.approx(expected, rel=1e-6)


def test_alpha_and_beta_are_the_best_of_the_shots_each_without_its_own_key() -> None:
    generator = torch.Generator().manual_seed(2)
    keys = torch.nn.functional.normalize(torch.randn(14, 6, generator=generator).double(), dim=-1)
    classes = torch.randn(3, 6, generator=generator).double() * 0.3 + keys[:3]
    labels = (torch.rand(14, 3, generator=generator) < 0.35).to(torch.int8)
    labels[2, 0] = labels[3, 1] = -1
    labels[:, 2] = 0
    labels[5, 2] = 1
    maps = {}
    for alpha in ALPHAS:
        for beta in BETAS:
            rows = []
            for left_out in range(len(keys)):
                rest = [row for row in range(len(keys)) if row != left_out]
                rows.append(
                    plain_logits(
                        keys[left_out].tolist(),
                        keys[rest].tolist(),
                        labels[rest].tolist(),
                        classes.tolist(),
                        alpha,
                        beta,
                    )
                )
            # the third class has one positive, whose cache is empty when it is left out
            known = [(labels[:, column] >= 0) for column in range(2)]
            maps[alpha, beta] = sum(
                average_precision_score(
                    labels[known[column], column], torch.tensor(rows)[known[column], column]
                )
                for column in range(2)
            )
    alpha, beta = leave_one_out(keys, labels, classes, ALPHAS, BETAS)
    assert maps[alpha, beta] == pytest.approx(max(maps.values()), abs=1e-9)
    assert len({round(value, 6) for value in maps.values()}) > 1


def test_where_no_class_has_two_shots_the_paper_s_first_values_hold() -> None:
    keys = torch.eye(3).double()
    labels = torch.eye(3).to(torch.int8)
    assert leave_one_out(keys, labels, keys, ALPHAS, BETAS) == START
    assert leave_one_out(keys, labels, keys, (7.0,), BETAS) == (7.0, START[1])


def test_trained_keys_start_as_the_untrained_cache_and_values_stay() -> None:
    backbone = small_backbone()
    labels = torch.tensor([[1, 0, 0], [1, 1, -1], [0, 1, 1], [0, 0, 1]], dtype=torch.int8)
    examples = Given(images(4, backbone.dim), labels)
    setup, rows = Setup(backbone, NAMES), torch.arange(4)
    plain = TipAdapter().fit(setup, examples)
    learner = TipAdapterF().learner(setup)
    assert isinstance(learner, TipLearner)
    learner.prepare(examples, rows, torch.device("cpu"))
    start = learner.state()
    assert all(start[name].equal(plain[name]) for name in plain)
    optimiser = learner.optimiser()
    learner.loss(examples.batch(rows, torch.device("cpu")), setup.generator).backward()
    optimiser.param_groups[0]["lr"] = 0.1
    optimiser.step()
    after = learner.state()
    assert [name for name in plain if not after[name].equal(plain[name])] == ["keys"]


def test_a_stored_cache_of_another_shape_is_refused() -> None:
    state = {"keys": torch.zeros(4, 6), "values": torch.zeros(3, 2)}
    state |= {"classes": torch.zeros(2, 6), "alpha": torch.tensor(1.0), "beta": torch.tensor(1.0)}
    with pytest.raises(ValueError, match="values"):
        TipAdapter().check_state(state, 2, 6)
    with pytest.raises(ValueError, match="keys"):
        TipAdapter().check_state(state | {"keys": torch.zeros(3, 5)}, 2, 6)
