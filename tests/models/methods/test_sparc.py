"""SPARC against plain loops in float64, its pairs by counting, its weights by an SVD."""

import itertools
import statistics as plain

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.backbone import ImageFeatures
from models.examples import SentenceBatch
from models.method import Setup
from models.methods.sparc import REFERENCE, Sparc, fused, sampled
from models.prompts import class_embeddings
from tasks.methods.checks import Given
from tests.models.conftest import small_backbone

BACKBONE = small_backbone()
NAMES = ("dog", "cat", "kite", "bus", "tree")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def captions(count: int = 60) -> SentenceBatch:
    """Captions of a few classes each; the last class stands alone."""
    draws = torch.Generator().manual_seed(2)
    labels = torch.rand(count, len(NAMES), generator=draws) < 0.4
    labels[:, 4] = False
    labels[::10] = False
    labels[::10, 4] = True
    return SentenceBatch(F.normalize(normal(count, BACKBONE.dim, seed=3), dim=-1), labels)


def pairs_of(batch: SentenceBatch, share: float, most: int) -> list[tuple[int, int]]:
    """By counting, pair by pair."""
    sets = [frozenset(row.nonzero().flatten().tolist()) for row in batch.labels]
    alone = [sum(c in each for each in sets) for c in range(len(NAMES))]
    found = set()
    for c in range(len(NAMES)):
        shares = {
            d: sum({c, d} <= each for each in sets) / alone[c] for d in range(len(NAMES)) if d != c
        }
        often = sorted((d for d in shares if shares[d] > share), key=lambda d: (-shares[d], d))
        found |= {(min(c, d), max(c, d)) for d in often[:most]}
    return sorted(found)


@pytest.mark.parametrize(("share", "most"), [(0.02, 20), (0.3, 20), (0.02, 1)])
def test_pairs_are_those_that_captions_name_together(share: float, most: int) -> None:
    batch = captions()
    method = Sparc(Sparc.Settings(templates="plain", share=share, most=most, captions=3))
    state = method.fit(Setup(BACKBONE, NAMES), Given(batch))
    expected = pairs_of(batch, share, most)
    assert len(state["pairs"]) == len(expected)
    for number, (i, j) in enumerate(expected):
        for c in range(len(NAMES)):
            assert (number in state["members"][c].tolist()) == (c in (i, j))
        both = [row for row in range(len(batch.labels)) if batch.labels[row, [i, j]].all()]
        just = [row for row in both if int(batch.labels[row].sum()) == 2]
        mean = batch.features[(just or both)[:3]].mean(dim=0)
        torch.testing.assert_close(state["pairs"][number], mean / mean.norm())
    assert (state["members"][4] == -1).all()


@pytest.mark.parametrize("reference", ["captions", "images"])
def test_scores_are_those_of_its_steps_one_by_one(reference: str) -> None:
    batch = captions()
    given = {"templates": "plain", "reference": reference}
    method = Sparc(Sparc.Settings.model_validate(given))
    state = method.fit(Setup(BACKBONE, NAMES), Given(batch))
    images = normal(8, BACKBONE.dim, seed=7)
    batches = [ImageFeatures(part, part, part[:, None]) for part in images.split(3)]
    state = method.for_set(state, batches, 1.0)
    seen = batch.features if reference == "captions" else images
    classes = class_embeddings(BACKBONE, NAMES, ["a photo of a {}.".format])
    names = class_embeddings(BACKBONE, NAMES, ["{}".format])
    pairs = pairs_of(batch, 0.02, 20)

    def first_step(vector: Tensor) -> tuple[list[float], list[float]]:
        unit = vector / vector.norm()
        single = [float(unit @ t) for t in classes]
        bare = [float(unit @ t) for t in names]
        compound = [float(unit @ z) for z in state["pairs"]]
        return (
            [(s - plain.mean(single)) / plain.stdev(single) for s in single],
            [(z - plain.mean(bare)) / plain.stdev(bare) for z in compound],
        )

    both = [first_step(vector) for vector in seen]
    columns = [np.array([each[k] for each in both]) for k in (0, 1)]
    shift = [column.mean(axis=0) for column in columns]
    spread = [column.std(axis=0) for column in columns]

    def of_class(vector: Tensor, c: int) -> np.ndarray:  # type: ignore[type-arg]
        single, compound = (
            (np.array(scores) - shift[k]) / spread[k] for k, scores in enumerate(first_step(vector))
        )
        own = sorted((compound[p] for p, pair in enumerate(pairs) if c in pair), reverse=True)
        return np.array([*own, single[c]])

    found = method.score_images(state, batches[0], 1.0)["merged"]
    for c, row in itertools.product(range(len(NAMES)), range(3)):
        table = np.stack([of_class(vector, c) for vector in seen])
        _, _, directions = np.linalg.svd(table - table.mean(axis=0), full_matrices=False)
        first = directions[0] * (1 if directions[0].mean() >= 0 else -1)
        ours = of_class(images[row], c)
        expected = (ours @ (first / np.abs(first).sum()) + ours[-1]) / 2
        assert float(found[row, c]) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_without_pairs_it_is_the_debiased_score() -> None:
    labels = torch.eye(len(NAMES), dtype=torch.bool)
    batch = SentenceBatch(F.normalize(normal(5, BACKBONE.dim, seed=3), dim=-1), labels)
    state = Sparc(Sparc.Settings(templates="plain")).fit(Setup(BACKBONE, NAMES), Given(batch))
    assert state["pairs"].shape == (0, BACKBONE.dim)
    images = normal(4, BACKBONE.dim)
    cosines = F.normalize(images, dim=-1) @ state["classes"].T
    z = (cosines - cosines.mean(dim=1, keepdim=True)) / cosines.std(dim=1, keepdim=True)
    expected = (z - state["class_mean"]) / state["class_std"]
    torch.testing.assert_close(fused(state, images), expected)


@pytest.mark.parametrize("count", [10, REFERENCE, 5 * REFERENCE + 3])
def test_a_sample_is_evenly_spaced(count: int) -> None:
    rows = sampled(iter(torch.arange(count, dtype=torch.float64)[:, None].split(1000))).flatten()
    step = int(rows[1] - rows[0])
    assert rows.tolist() == list(range(0, count, step))
    assert len(rows) == count if count < 2 * REFERENCE else REFERENCE <= len(rows) < 2 * REFERENCE
