"""SARB's decoupling, blendings and loss are those of plain loops."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.methods.sarb import (
    blend_instances,
    blend_prototypes,
    centres,
    decoupled,
    draw_unknown,
    known_bce,
    logits,
)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def normal(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector]


def test_a_class_s_feature_is_the_mean_of_positions_that_answer_to_it() -> None:
    dense, classes = drawn(2, 5, 4), drawn(3, 4, seed=1)
    found = decoupled(dense, classes, 6.0)
    for image in range(2):
        positions = [normal(row) for row in dense[image].tolist()]
        for column in range(3):
            vector = normal(classes[column].tolist())
            answers = [
                math.exp(6.0 * sum(a * b for a, b in zip(position, vector, strict=True)))
                for position in positions
            ]
            expected = [
                sum(w * p[i] for w, p in zip(answers, positions, strict=True)) / sum(answers)
                for i in range(4)
            ]
            assert found[image, column].tolist() == pytest.approx(expected)


@given(seed=st.integers(0, 999), alpha=st.floats(0, 1))
def test_instances_blend_where_one_is_unknown_and_its_partner_shows_it(
    seed: int, alpha: float
) -> None:
    features = drawn(5, 3, 2, seed=seed)
    marks = torch.randint(-1, 2, (5, 3), generator=torch.Generator().manual_seed(seed)).double()
    share = torch.tensor(alpha, dtype=torch.float64)
    blended, targets = blend_instances(features, marks, share)
    for row in range(5):
        partner = 4 - row
        for column in range(3):
            own, other = features[row, column].tolist(), features[partner, column].tolist()
            if marks[row, column] == -1 and marks[partner, column] == 1:
                expected = [alpha * a + (1 - alpha) * b for a, b in zip(own, other, strict=True)]
                target = 1 - alpha
            else:
                expected, target = own, float(marks[row, column])
            assert blended[row, column].tolist() == pytest.approx(expected)
            assert float(targets[row, column]) == pytest.approx(target)


def test_one_unknown_class_of_each_image_is_blended_with_its_prototype() -> None:
    features, prototypes = drawn(4, 3, 2), drawn(3, 2, seed=1)
    marks = torch.tensor([[-1, 0, -1], [1, 0, 1], [-1, 1, 0], [-1, -1, -1]])
    chosen = draw_unknown(marks, torch.Generator().manual_seed(0))
    assert chosen.sum(dim=1).tolist() == [1, 0, 1, 1]
    assert (marks[chosen] == -1).all()
    beta = torch.tensor(0.25, dtype=torch.float64)
    blended, targets = blend_prototypes(features, marks.double(), prototypes, chosen, beta)
    for row in range(4):
        for column in range(3):
            own, centre = features[row, column], prototypes[column]
            is_chosen = bool(chosen[row, column])
            expected = 0.25 * own + 0.75 * centre if is_chosen else own
            assert blended[row, column].tolist() == pytest.approx(expected.tolist())
            target = 0.75 if is_chosen else float(marks[row, column])
            assert float(targets[row, column]) == target


def test_each_unknown_class_may_be_drawn() -> None:
    marks = torch.full((300, 4), -1)
    marks[:, 2] = 0
    counts = draw_unknown(marks, torch.Generator().manual_seed(0)).sum(dim=0).tolist()
    assert counts[2] == 0
    assert min(counts[0], counts[1], counts[3]) > 60


def test_the_loss_is_the_mean_over_what_is_known() -> None:
    found = drawn(3, 4)
    targets = torch.tensor(
        [[1, 0, -1, 0.5], [-1, -1, -1, -1], [0.25, 1, 0, -1]], dtype=torch.float64
    )
    terms = []
    for logit, target in zip(found.flatten().tolist(), targets.flatten().tolist(), strict=True):
        if target >= 0:
            chance = 1 / (1 + math.exp(-logit))
            terms.append(-target * math.log(chance) - (1 - target) * math.log(1 - chance))
    assert float(known_bce(found, targets)) == pytest.approx(sum(terms) / len(terms))
    assert float(known_bce(found, torch.full_like(found, -1))) == 0


def test_each_class_has_a_classifier_of_its_own() -> None:
    features, weight, bias = drawn(2, 3, 4), drawn(3, 4, seed=1), drawn(3, seed=2)
    found = logits(features, weight, bias)
    for row in range(2):
        for column in range(3):
            expected = float(features[row, column] @ weight[column] + bias[column])
            assert float(found[row, column]) == pytest.approx(expected)


def test_centres_are_a_fixed_point_of_k_means_and_fewer_features_stand_twice() -> None:
    features = torch.cat([drawn(20, 3) * 0.1 + place for place in (0.0, 3.0, 9.0)])
    found = centres(features, 3, torch.Generator().manual_seed(1))
    nearest = torch.cdist(features, found).argmin(dim=1)
    for number in range(3):
        members = features[nearest == number]
        assert found[number].tolist() == pytest.approx(members.mean(dim=0).tolist())
    few = centres(features[:2], 5, torch.Generator().manual_seed(1))
    assert few.shape == (5, 3)
    assert {tuple(row) for row in few.tolist()} == {tuple(row) for row in features[:2].tolist()}
