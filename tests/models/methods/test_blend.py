"""Blends are those of plain loops; an image alone scores as its class's statistics have it."""

import math
from collections.abc import Sequence

import pytest
import torch

from models.backbone import ImageFeatures
from models.examples import ImageBatch
from models.method import Method, Scores, Setup, State
from models.methods.blend import Blend
from models.methods.linear_probe import LinearProbe
from models.methods.tai_dpt import TaIDPT
from models.methods.zero_shot import ZeroShot
from tasks.errors import InputError
from tasks.profile import load_profile
from tests.models.conftest import small_backbone

CLASSES, DIM = 3, 48


class Axes(Method):
    """Scores are the first coordinates, times a factor that the local softmax's scale is too."""

    name = "axes"
    summary = "coordinates"
    learns_from = "captions"

    def fit(self, setup: Setup, examples: object) -> State:
        return {"factor": torch.tensor(2.0)}

    def score_images(self, state: State, features: ImageFeatures, kappa: float) -> Scores:
        return {"merged": features.pooled[:, :CLASSES] * state["factor"] * kappa}


class Far(Axes):
    name = "far"
    learns_from = "labelled images"

    def score_images(self, state: State, features: ImageFeatures, kappa: float) -> Scores:
        return {"merged": 1000 + features.pooled[:, -CLASSES:] ** 3}


class Given:
    def __init__(self, features: ImageFeatures) -> None:
        self.features = features

    def __len__(self) -> int:
        return len(self.features.pooled)

    def batch(self, rows: torch.Tensor, device: torch.device) -> ImageBatch:
        pooled = self.features.pooled[rows]
        unknown = torch.full((len(rows), CLASSES), -1, dtype=torch.int8)
        return ImageBatch(ImageFeatures(pooled, pooled, pooled[:, None]), unknown)


def images(count: int, seed: int) -> ImageFeatures:
    pooled = torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed)).double()
    return ImageFeatures(pooled, pooled, pooled[:, None])


def fitted(parts: Sequence[Method], count: int = 30, **settings: object) -> tuple[Blend, State]:
    method = Blend(Blend.Settings(**settings), parts)  # type: ignore[arg-type]
    plain = Setup(small_backbone(), ("a", "b", "c"))
    states = {part.name: part.fit(plain, None) for part in parts}
    setup = Setup(plain.backbone, plain.names, states=states, kappa=5.0)
    return method, method.fit(setup, Given(images(count, seed=0)))


@pytest.mark.parametrize("rate", [0.9, 0.6])
def test_matrix_is_the_published_ensemble(rate: float) -> None:
    method, state = fitted((Axes(), Far()), normalise="matrix", rate=rate)
    tested = images(20, seed=1)
    of_set = method.for_set(state, [images(20, seed=1)], 5.0)
    found = method.score_images(of_set, tested, 5.0)["merged"].tolist()
    matrices = [
        (tested.pooled[:, :CLASSES] * 10).tolist(),
        (1000 + tested.pooled[:, -CLASSES:] ** 3).tolist(),
    ]
    scaled = []
    for matrix in matrices:
        least = min(min(row) for row in matrix)
        most = max(max(row) for row in matrix)
        scaled.append([[(value - least) / (most - least) for value in row] for row in matrix])
    for row, (ours, theirs) in enumerate(zip(*scaled, strict=True)):
        expected = [(1 - rate) * a + rate * b for a, b in zip(ours, theirs, strict=True)]
        # 1000 is what float32 statistics cost here
        assert found[row] == pytest.approx(expected, abs=1e-4)


def test_class_is_standardised_by_the_reference_alone() -> None:
    method, state = fitted((Axes(), Far()), normalise="class", rate=0.3)
    tested = images(1, seed=1)
    assert method.for_set(state, [images(20, seed=2)], 5.0) is state
    (found,) = method.score_images(state, tested, 5.0)["merged"].tolist()
    reference = images(30, seed=0).pooled
    for column in range(CLASSES):
        expected = 0.0
        for weight, score in (
            (0.7, lambda x, c=column: 10 * float(x[c])),
            (0.3, lambda x, c=column: 1000 + float(x[DIM - CLASSES + c]) ** 3),
        ):
            values = [score(row) for row in reference]
            mean = sum(values) / len(values)
            deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
            expected += weight * (score(tested.pooled[0]) - mean) / deviation
        assert found[column] == pytest.approx(expected, abs=1e-3)


def test_the_reference_is_thinned_evenly() -> None:
    method, state = fitted((Axes(), Far()), count=30, normalise="class", reference=10)
    thinned = images(30, seed=0).pooled[::3, :CLASSES] * 10
    assert state["shift/axes"].tolist() == pytest.approx(thinned.mean(dim=0).tolist(), rel=1e-5)
    assert method.check_state(state, CLASSES, DIM) is None
    with pytest.raises(ValueError, match="spread/far"):
        method.check_state({k: v for k, v in state.items() if k != "spread/far"}, CLASSES, DIM)


def test_it_builds_on_the_last_of_each_kind_or_on_those_named() -> None:
    before = [ZeroShot, TaIDPT, LinearProbe]
    assert Blend().builds_on(before) == (TaIDPT.name, LinearProbe.name)
    named = Blend(Blend.Settings(parts=(LinearProbe.name, ZeroShot.name)))
    assert named.builds_on(before) == (LinearProbe.name, ZeroShot.name)
    with pytest.raises(ValueError, match="before it are zero-shot, tai-dpt"):
        Blend().builds_on(before[:2])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"run": ["blend", "tai-dpt", "linear-probe"]}, "before it are none"),
        ({"methods.blend.parts": ["coopp", "tai-dpt"]}, "'coopp' is none of them"),
        ({"methods.blend.parts": ["tai-dpt"]}, "expected two or more"),
    ],
)
def test_parts_that_are_not_there_are_one_sentence(settings: dict[str, object], told: str) -> None:
    run = {"run": ["tai-dpt", "linear-probe", "blend"]}
    with pytest.raises(InputError, match=told):
        load_profile("demo", run | settings)


def test_a_run_says_what_a_blend_was_taught_by() -> None:
    profile = load_profile("demo", {"run": ["zero-shot", "tai-dpt", "linear-probe", "blend"]})
    assert profile.taught_by("blend") == {"captions", "labelled images"}
    assert profile.taught_by("zero-shot") == {"nothing"}
    assert profile.headline_method == "tai-dpt"
    assert profile.reference.name == "labelled"
    described = profile.method("blend").described()
    assert [part["method"] for part in described["parts"]] == ["tai-dpt", "linear-probe"]
