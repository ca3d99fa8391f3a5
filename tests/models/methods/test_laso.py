"""LaSO's label sets, pairs and losses are those of plain loops; networks may come from captions."""

import math

import pytest
import torch

from models.backbone import ImageFeatures
from models.examples import ImageBatch
from models.method import Setup
from models.methods.laso import (
    LaSO,
    LaSOCaptions,
    SetLearner,
    difference_of,
    draw_partners,
    intersection_of,
    scaled,
    set_losses,
    union_of,
)
from tasks.profile import load_profile
from tests.models.conftest import small_backbone

NAMES = ("a", "b", "c")


def labels_of(*rows: list[int]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.int8)


def test_label_sets_by_three_valued_logic() -> None:
    values = (1, 0, -1)
    worlds = {1: (True,), 0: (False,), -1: (True, False)}

    def told(outcomes: set[bool]) -> int:
        return -1 if len(outcomes) > 1 else int(outcomes.pop())

    for a in values:
        for b in values:
            pairs = [(x, y) for x in worlds[a] for y in worlds[b]]
            first, second = labels_of([a]), labels_of([b])
            assert int(union_of(first, second)) == told({x or y for x, y in pairs})
            assert int(intersection_of(first, second)) == told({x and y for x, y in pairs})
            assert int(difference_of(first, second)) == told({x and not y for x, y in pairs})


def test_partners_share_a_label_and_rare_labels_are_drawn_most() -> None:
    others = labels_of(*[[1, 0, 0]] * 8, [1, 1, 0], [0, 1, 0])
    rows = labels_of(*[[1, 1, 0]] * 500, [0, 0, 1], [0, -1, 0])
    drawn = draw_partners(rows, others, torch.Generator().manual_seed(0))
    shared = (others[drawn[:500]] == 1) & (rows[:500] == 1)
    assert shared.any(dim=1).all()
    # by the rarer label in 9 of 11 draws, so that the last two rows have most
    assert float((drawn[:500] >= 8).float().mean()) > 0.7
    assert ((drawn[500:] >= 0) & (drawn[500:] < len(others))).all()


def learner() -> SetLearner:
    backbone = small_backbone()
    found = SetLearner(Setup(backbone, NAMES), LaSO.Settings()).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return found


def test_losses_are_those_of_the_paper_one_by_one() -> None:
    of = learner()
    dim = of.base.in_features
    a, b = (
        torch.randn(4, dim, generator=torch.Generator().manual_seed(seed)).double()
        for seed in (2, 3)
    )
    of_a = labels_of([1, 0, 1], [0, 1, -1], [1, 1, 0], [-1, 0, 1])
    of_b = labels_of([1, 1, 0], [0, 1, 1], [-1, 1, 0], [0, 0, 1])
    expected = 0.0

    def classes(features: torch.Tensor, labels: torch.Tensor) -> float:
        total, known = 0.0, 0
        for row in range(4):
            for column in range(3):
                if int(labels[row, column]) < 0:
                    continue
                weight, bias = of.base.weight[column], of.base.bias[column]
                chance = 1 / (1 + math.exp(-float(features[row] @ weight + bias)))
                known += 1
                total -= math.log(chance if int(labels[row, column]) else 1 - chance)
        return total / known

    def near(one: torch.Tensor, other: torch.Tensor) -> float:
        pairs = zip(one.flatten().tolist(), other.flatten().tolist(), strict=True)
        return sum((x - y) ** 2 for x, y in pairs) / one.numel()

    with torch.no_grad():
        u, i, s = of.union, of.intersection, of.subtraction
        a_and_b, a_or_b = intersection_of(of_a, of_b), union_of(of_a, of_b)
        only_a, only_b = difference_of(of_a, of_b), difference_of(of_b, of_a)
        expected += classes(a, of_a) + classes(b, of_b)
        expected += classes(u(a, b), a_or_b) + classes(u(b, a), a_or_b)
        expected += classes(i(a, b), a_and_b) + classes(i(b, a), a_and_b)
        expected += classes(s(a, b), only_a) + classes(s(b, a), only_b)
        expected += classes(s(s(a, b), b), only_a) + near(s(s(a, b), b), s(a, b))
        expected += classes(s(a, i(a, b)), only_a) + near(s(a, i(a, b)), s(a, b))
        expected += classes(i(i(a, b), b), a_and_b) + near(i(i(a, b), b), i(a, b))
        expected += classes(u(u(a, b), b), a_or_b) + near(u(u(a, b), b), u(a, b))
        expected += near(u(s(a, b), i(a, b)), a)
        expected += near(u(a, b), u(b, a)) + near(i(a, b), i(b, a))
        assert float(set_losses(of, a, b, of_a, of_b)) == pytest.approx(expected)


def test_networks_start_as_plain_arithmetic() -> None:
    of = SetLearner(Setup(small_backbone(), NAMES), LaSO.Settings())
    a, b = torch.randn(2, 48), torch.randn(2, 48)
    assert torch.allclose(of.union(a, b), a + b)
    assert torch.allclose(of.intersection(a, b), (a + b) / 2)
    assert torch.allclose(of.subtraction(a, b), a - b)
    assert scaled(7 * a).square().mean(dim=1).tolist() == pytest.approx([1, 1], rel=1e-5)


def test_networks_that_captions_taught_are_used_as_they_are() -> None:
    setup = Setup(small_backbone(), NAMES)
    taught = learner().float()
    state = taught.state()
    method = LaSO(LaSO.Settings(networks="captions"))
    given = method.learner(Setup(setup.backbone, NAMES, states={LaSOCaptions.name: state}))
    assert isinstance(given, SetLearner)
    a, b = torch.randn(2, 48), torch.randn(2, 48)
    assert torch.equal(given.union(a, b), taught.union(a, b))
    labels = labels_of([1, 0, 1], [0, 1, 0], [1, 1, 0])
    pooled = torch.randn(3, 48, generator=torch.Generator().manual_seed(0))
    batch = ImageBatch(ImageFeatures(pooled, pooled, pooled[:, None]), labels)

    class Given:
        def __len__(self) -> int:
            return 3

        def batch(self, rows: torch.Tensor, device: torch.device) -> ImageBatch:
            return batch

    given.prepare(Given(), torch.arange(3), torch.device("cpu"))
    given.loss(batch, setup.generator).backward()
    optimiser = given.optimiser()
    optimiser.param_groups[0]["lr"] = 0.1
    optimiser.step()
    after = given.state()
    changed = {name for name in state if not state[name].equal(after[name])}
    assert changed == {"weight", "bias"}


def test_networks_of_captions_need_them_in_the_run() -> None:
    settings = {"run": ["zero-shot", "laso"], "methods.laso.networks": "captions"}
    with pytest.raises(Exception, match="laso-captions before it"):
        load_profile("demo", settings)
    profile = load_profile("demo", settings | {"run": ["laso-captions", "laso"]})
    assert profile.taught_by("laso") == {"captions", "labelled images"}
