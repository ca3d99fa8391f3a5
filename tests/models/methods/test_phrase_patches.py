"""Centred scores and the loss on phrases against plain loops in float64."""

import math

import pytest
import torch
from torch.nn import functional as F

from models.backbone import ImageFeatures
from models.examples import PhraseBatch
from models.method import Setup
from models.methods.phrase_patches import PhrasePatches, PhraseSettings
from models.methods.zero_shot_centred import NEUTRAL, ZeroShotCentred
from models.prompts import class_embeddings
from models.scoring import centred_scores
from tests.models.conftest import small_backbone

BACKBONE = small_backbone()
NAMES = ("dog", "cat", "kite")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pooled(scores: list[float], kappa: float) -> float:
    weights = [math.exp(kappa * score) for score in scores]
    return sum(w * s for w, s in zip(weights, scores, strict=True)) / sum(weights)


@pytest.mark.parametrize("context", [0.0, 0.3])
def test_centred_scores_are_those_of_a_plain_loop(context: float) -> None:
    whole, dense, vectors = normal(2, 5), normal(2, 4, 5, seed=1), normal(3, 5, seed=2)
    of_global, of_local = centred_scores(whole, dense, vectors, vectors, kappa=7.0, context=context)
    for b in range(2):
        g = whole[b] / whole[b].norm()
        for c in range(3):
            assert float(of_global[b, c]) == pytest.approx(float(g @ vectors[c]))
            found = []
            for j in range(4):
                position = dense[b, j] / dense[b, j].norm() + context * g
                found.append(float(position / position.norm() @ vectors[c]))
            assert float(of_local[b, c]) == pytest.approx(pooled(found, 7.0))


def test_the_mean_of_few_classes_is_taken_over_common_words_too() -> None:
    state = ZeroShotCentred().fit(Setup(BACKBONE, NAMES), None)
    vectors = class_embeddings(BACKBONE, NAMES, ["a photo of a {}.".format])
    others = class_embeddings(BACKBONE, NEUTRAL, ["a photo of a {}.".format])
    assert len(NEUTRAL) == 50
    for c in range(3):
        expected = vectors[c] - sum([*vectors, *others]) / 53
        torch.testing.assert_close(state["classes"][c], expected)
    many = tuple(f"thing {number}" for number in range(12))
    state = ZeroShotCentred().fit(Setup(BACKBONE, many), None)
    assert float(state["classes"].sum(dim=0).abs().max()) < 1e-9


def test_the_loss_on_phrases_is_that_of_a_plain_loop() -> None:
    dim = BACKBONE.dim
    features = F.normalize(normal(5, dim), dim=-1)
    labels = torch.tensor([[True, False, False], [True, True, False]])
    offsets, named = torch.tensor([0, 2, 5]), torch.tensor([0, 3, 4])
    batch = PhraseBatch(features, offsets, named, torch.tensor([0, 1, 1]), labels)
    settings = PhraseSettings(kappa=6.0, margin=0.7, scale=3.0, pull=0.4)
    learner = PhrasePatches(settings).learner(Setup(BACKBONE, NAMES))

    class Whole:
        def __len__(self) -> int:
            return 2

        def batch(self, rows: torch.Tensor, device: torch.device) -> PhraseBatch:
            return batch

    untrained = class_embeddings(BACKBONE, NAMES, ["a photo of a {}.".format])
    learner.prepare(Whole(), torch.arange(2), torch.device("cpu"))
    phrases: list[list[int]] = [[0], [3, 4], []]
    means = []
    for c in range(3):
        total = untrained[c] + sum(features[row] for row in phrases[c])
        mean = total / (1 + len(phrases[c]))
        means.append(mean / mean.norm())
    vectors = normal(3, dim, seed=3)
    with torch.no_grad():
        learner.classes.copy_(vectors)  # type: ignore[operator]
    expected = 0.4 * sum(float((vectors[c] - means[c]).square().sum()) for c in range(3))
    middle = vectors.mean(dim=0)
    for caption in range(2):
        rows = range(int(offsets[caption]), int(offsets[caption + 1]))
        scores = [
            pooled([float(features[row] @ (vectors[c] - middle)) for row in rows], 6.0)
            for c in range(3)
        ]
        for i in range(3):
            for j in range(3):
                if labels[caption, i] and not labels[caption, j]:
                    expected += max(0.0, 0.7 - 3.0 * scores[i] + 3.0 * scores[j]) / 2
    loss = learner.loss(batch, torch.Generator()).detach()
    assert float(loss) == pytest.approx(expected)


def test_a_class_that_no_phrase_names_keeps_its_own_vector_and_images_are_scored_by_both() -> None:
    dim = BACKBONE.dim
    state = {"local": normal(3, dim), "global": normal(3, dim, seed=1)}
    features = ImageFeatures(normal(2, dim, seed=2), normal(2, dim), normal(2, 4, dim, seed=3))
    method = PhrasePatches(PhraseSettings(context=0.2, global_weight=0.6))
    scores = method.score_images(state, features, 9.0)
    torch.testing.assert_close(scores["merged"], scores["local"] + 0.6 * scores["global"])
