"""LaSO (Alfassy et al., CVPR 2019): networks that unite, intersect and subtract label sets.

The paper trains a whole network on seen classes first. Here the set networks and classifiers are
heads on frozen features; `laso-captions` learns the same from captions, whose labels are sets too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from pydantic import Field

from models.lazily import Module, lazily
from models.method import Learner, Method, Scores, Setup, State, TrainedSettings, state_of
from models.templates import PLAIN

with lazily():
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    from models.backbone import ImageFeatures
    from models.examples import CaptionBatch, Examples, ImageBatch
    from models.losses import bce_loss
    from models.prompts import class_embeddings

OPERATIONS: Final = ("union", "intersection", "subtraction")
CANDIDATES: Final = 4096
"""Examples that partners are drawn from, at most."""


class SetSettings(TrainedSettings):
    """Set networks and classifiers."""

    epochs: int = Field(10, ge=1, description="Times that all examples are gone through.")
    batch: int = Field(64, ge=1, description="Examples per step.")
    learning_rate: float = Field(3e-3, gt=0, description="Adam's rate.")
    scale: float = Field(20.0, gt=0, description="Factor on the cosines that logits start from.")
    pairs: int = Field(4, ge=1, description="Partners of each example in each epoch.")


class ImageSetSettings(SetSettings):
    """Set networks and classifiers on labelled images."""

    networks: Literal["images", "captions"] = Field(
        "images",
        description="Whose pairs the set networks learn from: the labelled images', or captions', "
        "by laso-captions before it in the run.",
    )


class SetNetwork(Module):
    """An operation on features [P, d]: a plain one, plus what is learned, which starts as 0."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.inner = nn.Linear(2 * dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, first: Tensor, second: Tensor, plain: Tensor) -> Tensor:
        """`plain` [P, d] corrected by what the network makes of both features."""
        inner = self.norm(self.inner(torch.cat([first, second], dim=-1)))
        corrected: Tensor = plain + self.out(F.leaky_relu(inner, 0.2))
        return corrected


class SetLearner(Learner):
    """Three set networks with their own classifier, and the classifier that scores images.

    The latter learns from features as they are, and from pairs' unions with the unions of labels.
    """

    settings: SetSettings

    def __init__(self, setup: Setup, settings: SetSettings, networks: State | None = None) -> None:
        super().__init__(settings)
        dim, classes = setup.backbone.dim, len(setup.names)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(setup.seed)
            self.networks = nn.ModuleDict({name: SetNetwork(dim) for name in OPERATIONS})
        self.base = nn.Linear(dim, classes)
        self.head = nn.Linear(dim, classes)
        nn.init.zeros_(self.base.weight)
        nn.init.zeros_(self.base.bias)
        with torch.no_grad():
            # the classifier starts as CLIP's own, by the classes' names
            found = class_embeddings(setup.backbone, setup.names, [PLAIN.format])
            self.head.weight.copy_(found * settings.scale / math.sqrt(dim))
            nn.init.zeros_(self.head.bias)
        self.is_given = networks is not None
        if networks is not None:
            # what captions taught stays as it is
            self.networks.load_state_dict(dict(state_of("networks", networks)))
            self.networks.requires_grad_(False)
            self.base.requires_grad_(False)
        self._features, self._labels = torch.zeros(0, dim), torch.zeros(0, classes)

    def prepare(self, examples: Examples[object], rows: Tensor, device: torch.device) -> None:
        """The examples that partners are drawn from; biases by how frequent their labels are."""
        some = rows[
            torch.arange(min(CANDIDATES, len(rows))) * len(rows) // min(CANDIDATES, len(rows))
        ]
        self._features, self._labels = features_and_labels(examples.batch(some, device))
        known, shown = (self._labels >= 0).sum(dim=0), (self._labels == 1).sum(dim=0)
        with torch.no_grad():
            started = F.linear(self._features, self.head.weight).mean(dim=0)
            self.head.bias.copy_(((shown + 1) / (known + 2)).logit() - started)

    def loss(self, batch: ImageBatch | CaptionBatch, generator: torch.Generator) -> Tensor:
        """The classifier's loss, and all of LaSO's unless the networks are given."""
        features, labels = features_and_labels(batch)
        partners = draw_partners(labels.repeat(self.settings.pairs, 1), self._labels, generator)
        first, of_first = (each.repeat(self.settings.pairs, 1) for each in (features, labels))
        second, of_second = self._features[partners], self._labels[partners]
        with torch.no_grad():
            united = self.union(first, second)
        total = bce_loss(self.head(features), labels)
        total = total + bce_loss(self.head(united), union_of(of_first, of_second))
        if self.is_given:
            return total
        return total + set_losses(self, first, second, of_first, of_second)

    def union(self, first: Tensor, second: Tensor) -> Tensor:
        """[P, d] as if of one image that shows what either does."""
        found: Tensor = self.networks["union"](first, second, first + second)
        return found

    def intersection(self, first: Tensor, second: Tensor) -> Tensor:
        """[P, d] as if of an image that shows what both do."""
        found: Tensor = self.networks["intersection"](first, second, (first + second) / 2)
        return found

    def subtraction(self, first: Tensor, second: Tensor) -> Tensor:
        """[P, d] as if of an image that shows what the first does and the second does not."""
        found: Tensor = self.networks["subtraction"](first, second, first - second)
        return found

    def state(self) -> State:
        """The networks and the classifier."""
        found = {f"networks/{name}": each for name, each in self.networks.state_dict().items()}
        found |= {"weight": self.head.weight, "bias": self.head.bias}
        return {name: tensor.detach().cpu() for name, tensor in found.items()}

    def optimiser(self) -> torch.optim.Optimizer:
        """Adam on what is trained."""
        trained = [each for each in self.parameters() if each.requires_grad]
        return torch.optim.Adam(trained, lr=1.0)

    def rate(self, epoch: int, step: int, steps: int) -> float:
        """Up to the base rate over three epochs, as the paper has it, then the same."""
        done = epoch + (step + 1) / steps
        return self.settings.learning_rate * min(1.0, done / 3)


class Classifier:
    """What both leave: a linear classifier of global features."""

    def score_images(self, state: State, features: ImageFeatures, kappa: float) -> Scores:
        """The classifier's logits."""
        del kappa
        return {"merged": logits(state, scaled(features.pooled))}

    def class_vectors(self, state: State) -> Mapping[str, Tensor]:
        """The classifier's weights."""
        return {"global": state["weight"]}

    def shapes(self, classes: int, dim: int) -> Mapping[str, tuple[int, ...]]:
        """See `Method.shapes`."""
        return {"weight": (classes, dim), "bias": (classes,)}


class LaSOCaptions(Classifier, Method):
    """Set networks and classifiers learned from pairs of captions; no image is seen.

    A classifier's offset between captions and images is the same for every image, so that it ranks
    images although it learned from text.

    >>> method = LaSOCaptions(LaSOCaptions.Settings(epochs=1))
    >>> learner = method.learner(setup)
    >>> learner.prepare(labelled, torch.arange(len(labelled)), setup.backbone.device)
    >>> learner.loss(captions, setup.generator).backward()

    """

    name = "laso-captions"
    summary = "label sets united, intersected and subtracted, learned from pairs of captions"
    learns_from = "captions"
    needs = frozenset({"text tower"})
    Settings = SetSettings
    settings: SetSettings

    def learner(self, setup: Setup) -> Learner:
        """See `Method.learner`."""
        return SetLearner(setup, self.settings)


class LaSO(Classifier, Method):
    """Classifiers that learn from labelled images and from unions of pairs of them.

    Unions are made by networks that learn from the same images, or learned from captions.

    >>> method = LaSO(LaSO.Settings(epochs=1))
    >>> learner = method.learner(setup)
    >>> learner.prepare(labelled, torch.arange(len(labelled)), setup.backbone.device)
    >>> learner.loss(images, setup.generator).backward()

    """

    name = "laso"
    summary = "classifiers on frozen features of labelled images and of united pairs of them"
    learns_from = "labelled images"
    needs = frozenset({"text tower"})
    Settings = ImageSetSettings
    settings: ImageSetSettings

    def builds_on(self, before: Sequence[type[Method]]) -> tuple[str, ...]:
        """See `Method.builds_on`."""
        if self.settings.networks == "images":
            return ()
        if LaSOCaptions not in before:
            raise ValueError(
                f"methods.{self.name}.networks = 'captions' needs {LaSOCaptions.name} before it "
                "in `run`"
            )
        return (LaSOCaptions.name,)

    def learner(self, setup: Setup) -> Learner:
        """See `Method.learner`."""
        given = setup.states[LaSOCaptions.name] if self.settings.networks == "captions" else None
        return SetLearner(setup, self.settings, given)


def logits(state: State, inputs: Tensor) -> Tensor:
    """[B, C] of features [B, d] as `scaled` has them."""
    return inputs @ state["weight"].T + state["bias"]


def features_and_labels(batch: ImageBatch | CaptionBatch | object) -> tuple[Tensor, Tensor]:
    """Global features [B, d], as `scaled` has them, and labels [B, C] int8, -1 if unknown."""
    if isinstance(batch, ImageBatch):
        return scaled(batch.features.pooled), batch.labels
    if isinstance(batch, CaptionBatch):
        return scaled(batch.global_), batch.labels.to(torch.int8)
    raise TypeError(f"{type(batch).__name__}: expected images or captions")


def scaled(features: Tensor) -> Tensor:
    """Features [B, d] whose dimensions have a mean square of 1, as layers like them."""
    return F.normalize(features, dim=-1) * math.sqrt(features.shape[-1])


def draw_partners(labels: Tensor, others: Tensor, generator: torch.Generator) -> Tensor:
    """[P] rows of `others` [N, C] that share a label with the rows of `labels` [P, C].

    The shared label is drawn among the row's, the rare ones most; where none is known, any row.
    """
    shown = (labels == 1).float()
    of_class = (others == 1).sum(dim=0).clamp(min=1)
    weights = torch.where(shown.any(dim=1, keepdim=True), shown / of_class, torch.ones_like(shown))
    chosen = torch.multinomial(weights.cpu(), 1, generator=generator)[:, 0].to(labels.device)
    has = (others == 1).T[chosen].float()
    has = torch.where(shown.any(dim=1, keepdim=True) & has.any(dim=1, keepdim=True), has, 1.0)
    return torch.multinomial(has.cpu(), 1, generator=generator)[:, 0].to(labels.device)


def union_of(first: Tensor, second: Tensor) -> Tensor:
    """Labels [P, C] of what either shows; unknown where one is and the other does not show it."""
    return torch.maximum(first, second).where(
        (first >= 0) & (second >= 0) | (first == 1) | (second == 1), -1
    )


def intersection_of(first: Tensor, second: Tensor) -> Tensor:
    """Labels [P, C] of what both show; unknown where one is and the other is not known absent."""
    both = torch.minimum(first, second)
    return torch.where((first == 0) | (second == 0), torch.zeros_like(both), both)


def difference_of(first: Tensor, second: Tensor) -> Tensor:
    """Labels [P, C] of what the first shows and the second does not."""
    opposite = torch.where(second >= 0, 1 - second, second)
    return intersection_of(first, opposite)


def set_losses(of: SetLearner, a: Tensor, b: Tensor, of_a: Tensor, of_b: Tensor) -> Tensor:
    """LaSO's losses, all of weight 1 (PEERS 6), of pairs of features [P, d] and labels [P, C].

    Classes: of both features, of each operation in both orders, and of four tautologies. Features:
    each tautology near its operation, union and intersection the same in both orders, and (so that
    nothing collapses) the union of a without b and a ∩ b near a.
    """
    union, both = of.union(a, b), of.intersection(a, b)
    left, right = of.subtraction(a, b), of.subtraction(b, a)
    united, common = union_of(of_a, of_b), intersection_of(of_a, of_b)
    of_left, of_right = difference_of(of_a, of_b), difference_of(of_b, of_a)
    swapped_union, swapped_both = of.union(b, a), of.intersection(b, a)
    tautologies = (
        (of.subtraction(left, b), left, of_left),
        (of.subtraction(a, both), left, of_left),
        (of.intersection(both, b), both, common),
        (of.union(union, b), union, united),
    )
    classes = (
        (a, of_a),
        (b, of_b),
        (union, united),
        (swapped_union, united),
        (both, common),
        (swapped_both, common),
        (left, of_left),
        (right, of_right),
        *((found, labels) for found, _, labels in tautologies),
    )
    near = (
        (of.union(left, both), a),
        (union, swapped_union),
        (both, swapped_both),
        *((found, operation) for found, operation, _ in tautologies),
    )
    return torch.stack(
        [bce_loss(of.base(found), labels) for found, labels in classes]
        + [F.mse_loss(found, expected) for found, expected in near]
    ).sum()
