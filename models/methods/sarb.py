"""SARB (Pu et al., AAAI 2022): unknown labels filled by blending features of known ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from pydantic import Field

from models.lazily import lazily
from models.method import Learner, Method, Scores, Setup, State, TrainedSettings
from models.templates import PLAIN

with lazily():
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    from models.backbone import ImageFeatures
    from models.examples import Examples, ImageBatch
    from models.prompts import class_embeddings

IMAGES_AT_ONCE: Final = 64
SHARE_RATE: Final = 0.01
ROUNDS: Final = 20
"""Of k-means at most."""


class BlendingSettings(TrainedSettings):
    """A classifier per class on features of its own."""

    epochs: int = Field(10, ge=1, description="Times that all images are gone through.")
    batch: int = Field(32, ge=2, description="Images per step; each is blended with another.")
    learning_rate: float = Field(1e-1, gt=0, description="Adam's rate, a tenth in the last half.")
    tau: float = Field(20.0, gt=0, description="Sharpness of a class's weights on positions.")
    prototypes: int = Field(10, ge=1, description="Centres of each class's known positives.")
    scale: float = Field(20.0, gt=0, description="Factor on the cosines that logits start from.")


class BlendingLearner(Learner):
    """Weights [C, d] and biases [C] on decoupled features, and the two shares of blending."""

    settings: BlendingSettings

    def __init__(self, setup: Setup, settings: BlendingSettings) -> None:
        super().__init__(settings)
        found = class_embeddings(setup.backbone, setup.names, [PLAIN.format])
        self._classes = found
        self._seed = setup.seed
        self._centres = found[:, None]
        self.weight = nn.Parameter(settings.scale * found)
        self.bias = nn.Parameter(torch.zeros(len(found), device=found.device))
        self.alpha = nn.Parameter(torch.zeros((), device=found.device))
        self.beta = nn.Parameter(torch.zeros((), device=found.device))

    def prepare(self, examples: Examples[ImageBatch], rows: Tensor, device: torch.device) -> None:
        """Centres of each class's features on images known to show it, and biases to start from.

        The features are frozen, so the centres are too; the paper finds them anew every 5 epochs.
        A class that no image is known to show has its text's vector.
        """
        found: list[list[Tensor]] = [[] for _ in self._classes]
        # of each class: known labels, positives among them, and logits before training
        sums = torch.zeros(3, len(self._classes), device=device)
        for some in rows.split(IMAGES_AT_ONCE):
            batch = examples.batch(some, device)
            features = decoupled(batch.features.dense, self._classes, self.settings.tau)
            for row, column in (batch.labels == 1).nonzero().tolist():
                found[column].append(features[row, column])
            started = logits(features, self.weight.detach(), sums.new_zeros(len(self._classes)))
            sums[0] += (batch.labels >= 0).sum(dim=0)
            sums[1] += (batch.labels == 1).sum(dim=0)
            sums[2] += started.sum(dim=0) / len(rows)
        with torch.no_grad():
            self.bias.copy_(((sums[1] + 1) / (sums[0] + 2)).logit() - sums[2])
        count, generator = self.settings.prototypes, torch.Generator().manual_seed(self._seed)
        self._centres = torch.stack(
            [
                centres(torch.stack(of_class), count, generator)
                if of_class
                else self._classes[column].expand(count, -1)
                for column, of_class in enumerate(found)
            ]
        )

    def loss(self, batch: ImageBatch, generator: torch.Generator) -> Tensor:
        """BCE of known labels: as they are, blended by instance, and blended by prototype."""
        features = decoupled(batch.features.dense, self._classes, self.settings.tau)
        targets = batch.labels.to(features.dtype)
        by_instance = blend_instances(features, targets, share(self.alpha))
        centre = int(torch.randint(self._centres.shape[1], (1,), generator=generator))
        chosen = draw_unknown(batch.labels, generator)
        by_prototype = blend_prototypes(
            features, targets, self._centres[:, centre], chosen, share(self.beta)
        )
        pairs = ((features, targets), by_instance, by_prototype)
        return torch.stack(
            [known_bce(logits(each, self.weight, self.bias), of) for each, of in pairs]
        ).sum()

    def state(self) -> State:
        """The classes' text vectors, which decouple, and the classifiers."""
        found = {"classes": self._classes, "weight": self.weight, "bias": self.bias}
        found |= {"alpha": share(self.alpha), "beta": share(self.beta)}
        return {name: tensor.detach().cpu() for name, tensor in found.items()}

    def optimiser(self) -> torch.optim.Optimizer:
        """Adam, its decay apart: the mean loss of so many labels has gradients smaller than it."""
        return torch.optim.AdamW(self.parameters(), lr=1.0, weight_decay=5e-4)

    def rate(self, epoch: int, step: int, steps: int) -> float:
        """The base rate, and a tenth of it in the last half."""
        del step, steps
        is_late = epoch >= math.ceil(self.settings.epochs / 2)
        return self.settings.learning_rate * (0.1 if is_late else 1.0)


class SARB(Method):
    """A classifier per class on its own feature of an image, unknown labels blended in.

    f_c = sum over positions j of softmax_j(tau <F_j, G_c>) F_j. The paper trains a ResNet, a graph
    network over classes and a contrastive loss on features; here are its decoupling, with the
    class's text in place of a word vector, its two blendings and its classifiers, on frozen
    features, of which the contrastive loss would have nothing to learn.

    >>> method = SARB(SARB.Settings(epochs=1))
    >>> learner = method.learner(setup)
    >>> learner.prepare(labelled, torch.arange(len(labelled)), setup.backbone.device)
    >>> learner.loss(images, setup.generator).backward()

    """

    name = "sarb"
    summary = "classifiers on frozen features, unknown labels blended in from other images"
    learns_from = "labelled images"
    needs = frozenset({"text tower", "dense features"})
    Settings = BlendingSettings
    settings: BlendingSettings

    def learner(self, setup: Setup) -> Learner:
        """See `Method.learner`."""
        return BlendingLearner(setup, self.settings)

    def score_images(self, state: State, features: ImageFeatures, kappa: float) -> Scores:
        """Logits."""
        del kappa
        found = decoupled(features.dense, state["classes"], self.settings.tau)
        return {"merged": logits(found, state["weight"], state["bias"])}

    def shapes(self, classes: int, dim: int) -> Mapping[str, tuple[int, ...]]:
        """See `Method.shapes`."""
        return {"classes": (classes, dim), "weight": (classes, dim), "bias": (classes,)}


def decoupled(dense: Tensor, classes: Tensor, tau: float) -> Tensor:
    """A feature per class [B, C, d] of positions [B, N, d], by class vectors [C, d]."""
    positions = F.normalize(dense, dim=-1)
    weights = (tau * (positions @ F.normalize(classes, dim=-1).T)).softmax(dim=1)
    return weights.transpose(1, 2) @ positions


def logits(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """[B, C] of features [B, C, d]: each class's classifier on its own feature."""
    return (features * weight).sum(dim=-1) + bias


def share(parameter: Tensor) -> Tensor:
    """A share of blending in 0 to 1, ½ at first; learned far more slowly than weights are.

    At the weights' rate it runs to where blending is easiest, and nothing is blended.
    """
    return (0.5 + SHARE_RATE * parameter).clamp(0, 1)


def blend_instances(features: Tensor, targets: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Features and targets where what is unknown on an image and known on its partner is blended.

    Partners are the batch in reverse. There f = alpha f¹ + (1 - alpha) f², and the target is
    1 - alpha.

    Args:
        features: [B, C, d].
        targets: [B, C], 1, 0 or -1 (unknown).
        alpha: share of the image's own feature.

    """
    is_blended = (targets < 0) & (targets.flip(0) == 1)
    blended = alpha * features + (1 - alpha) * features.flip(0)
    return (
        torch.where(is_blended[..., None], blended, features),
        torch.where(is_blended, 1 - alpha, targets),
    )


def blend_prototypes(
    features: Tensor, targets: Tensor, prototypes: Tensor, chosen: Tensor, beta: Tensor
) -> tuple[Tensor, Tensor]:
    """Features and targets where an unknown class of each image is blended with its prototype.

    Args:
        features: [B, C, d].
        targets: [B, C], 1, 0 or -1 (unknown).
        prototypes: [C, d].
        chosen: [B, C], true for the class of each image that is blended.
        beta: share of the image's own feature.

    """
    blended = beta * features + (1 - beta) * prototypes
    return (
        torch.where(chosen[..., None], blended, features),
        torch.where(chosen, 1 - beta, targets),
    )


def draw_unknown(labels: Tensor, generator: torch.Generator) -> Tensor:
    """[B, C] with one unknown label of each image marked, at random; none where all are known."""
    draws = torch.rand(labels.shape, generator=generator).to(labels.device)
    first = draws.masked_fill(labels >= 0, -1.0).argmax(dim=1)
    marked = F.one_hot(first, labels.shape[1]).bool()
    return marked & (labels < 0)


def known_bce(found: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of logits [B, C] and targets in 0 to 1, mean where they are known.

    What is less than 0 is unknown.
    """
    known = targets >= 0
    errors = F.binary_cross_entropy_with_logits(found, targets.clamp(min=0), reduction="none")
    return errors.masked_fill(~known, 0.0).sum() / known.sum().clamp(min=1)


def centres(features: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """K-means: [count, d] centres of features [N, d]; with fewer features, some stand twice."""
    start = torch.randperm(len(features), generator=generator)[:count]
    found = features[start]
    for _ in range(ROUNDS):
        nearest = torch.cdist(features, found).argmin(dim=1)
        members = F.one_hot(nearest, len(found)).to(features.dtype)
        sizes = members.sum(dim=0)
        means = members.T @ features / sizes[:, None].clamp(min=1)
        moved = torch.where(sizes[:, None] > 0, means, found)
        if torch.equal(moved, found):
            break
        found = moved
    return found[torch.arange(count) % len(found)]
