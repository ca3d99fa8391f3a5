"""CLOSE (Gu, Clark, Kembhavi, ICCV 2023): a head on caption vectors with noise, used on images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from models.lazily import Module, lazily
from models.method import Learner, Method, Scores, Setup, State, TrainedSettings
from models.templates import PLAIN

with lazily():
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    from models.adapters import adapted, linear_map, mean_shift
    from models.backbone import ImageFeatures
    from models.examples import SentenceBatch
    from models.losses import ranking_loss
    from models.noise import noisy
    from models.prompts import class_embeddings
    from models.scoring import centred, in_context, pooled


class CloseSettings(TrainedSettings):
    """A head that stays near the class vectors, and its noise."""

    epochs: int = Field(8, ge=1, description="Times that all captions are gone through.")
    learning_rate: float = Field(3e-3, gt=0, description="Adam's rate at first; linear to 0.")
    cosine: float = Field(
        0.67, gt=0, le=1, description="Cosine of a caption's vector with noise to itself; 1: none."
    )
    adapter: Literal["none", "mean", "linear"] = Field(
        "none",
        description="Map from captions to images before the noise, from the pairs of [paired]: "
        "their means' difference, or least squares.",
    )
    hidden: int = Field(0, ge=0, description="Units of a hidden layer; 0: the head is linear.")
    pull: float = Field(
        1.0, ge=0, description="Weight of the squared distance to the untrained class vectors."
    )
    margin: float = Field(1.0, gt=0, description="Ranking loss's margin on scaled scores.")
    scale: float = Field(4.0, gt=0, description="Factor on the scores inside the loss.")
    context: float = Field(
        0.1, ge=0, description="Share of the image's feature mixed into each position's."
    )
    global_weight: float = Field(
        0.5, ge=0, description="Weight of the whole image's score beside the positions'."
    )


class Head(Module):
    """Scores [..., C] of features [..., d]: centred class vectors, after a residual hidden layer.

    f + B relu(A f + a), with B = 0 at first, is what the class vectors see; without hidden units it
    is f itself.
    """

    def __init__(self, classes: Tensor, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        dim = classes.shape[1]
        self.classes = nn.Parameter(classes.clone())
        drawn = torch.randn(hidden, dim, generator=generator).to(classes) / math.sqrt(dim)
        self.inner = nn.Parameter(drawn)
        self.bias = nn.Parameter(classes.new_zeros(hidden))
        self.outer = nn.Parameter(classes.new_zeros(dim, hidden))

    def forward(self, features: Tensor) -> Tensor:
        """Scores by class, of features of any lengths."""
        return head_scores(dict(self.named_parameters()), features)


def head_scores(state: Mapping[str, Tensor], features: Tensor) -> Tensor:
    """`Head` by its named tensors, on features of unit length."""
    unit = F.normalize(features, dim=-1)
    seen = F.relu(unit @ state["inner"].T + state["bias"]) @ state["outer"].T
    return (unit + seen) @ centred(state["classes"]).T


class CloseLearner(Learner):
    """The head, pulled to where it began."""

    settings: CloseSettings

    def __init__(self, setup: Setup, settings: CloseSettings) -> None:
        super().__init__(settings)
        self.untrained = class_embeddings(setup.backbone, setup.names, [PLAIN.format])
        self.head = Head(self.untrained, settings.hidden, setup.generator)
        self.adapter = _adapter(setup, settings.adapter)

    def start_from(self, before: State, rows: Tensor) -> None:
        """See `Learner.start_from`; the pull stays to the untrained vectors."""
        known = rows >= 0
        with torch.no_grad():
            self.head.classes[known] = before["classes"][rows[known]].to(self.head.classes)
            for name in ("inner", "bias", "outer"):
                getattr(self.head, name).copy_(before[name])

    def loss(self, batch: SentenceBatch, generator: torch.Generator) -> Tensor:
        """Ranking loss of the head on normalise(a(t) + s e), a the adapter, plus the pull."""
        settings = self.settings
        features = batch.features
        if self.adapter:
            weight, bias = self.adapter
            features = adapted(features, weight.to(features), bias.to(features))
        scores = self.head(noisy(features, settings.cosine, generator))
        ranked = ranking_loss(scores, batch.labels, margin=settings.margin, scale=settings.scale)
        moved = (self.head.classes - self.untrained).square().sum()
        return ranked + settings.pull * (moved + self.head.outer.square().sum())

    def state(self) -> State:
        """The head's tensors."""
        return {name: value.detach().cpu() for name, value in self.head.named_parameters()}

    def optimiser(self) -> torch.optim.Optimizer:
        """AdamW, as in the public code."""
        return torch.optim.AdamW(self.parameters(), lr=1.0, weight_decay=0.0)

    def rate(self, epoch: int, step: int, steps: int) -> float:
        """Linear from the base rate to 0, by step, as in the public code."""
        place = (epoch * steps + step) / (self.settings.epochs * steps)
        return self.settings.learning_rate * (1 - place)


def _adapter(setup: Setup, kind: str) -> tuple[Tensor, Tensor] | None:
    """Weight [d, d] and bias [d] of the map that goes before the noise, if any."""
    if kind == "none":
        return None
    if setup.pairs is None:
        raise ValueError(f"adapter {kind!r} is fitted on pairs, and there are none")
    return mean_shift(setup.pairs) if kind == "mean" else linear_map(setup.pairs)


class Close(Method):
    """A linear head, or one with a hidden layer, on captions' vectors with noise; images have none.

    Noise in training is all that crosses from texts to images. It is set by the angle it turns a
    vector by, which means the same in any space.

    >>> method = Close(Close.Settings(epochs=1))
    >>> learner = method.learner(setup)
    >>> learner.loss(sentences, setup.generator).backward()

    """

    name = "close"
    summary = "a head on captions' vectors with noise, used on images as it is"
    learns_from = "captions"
    reads = "sentences"
    starts_warm = True
    needs = frozenset({"text tower", "dense features"})
    Settings = CloseSettings
    settings: CloseSettings

    def wants_pairs(self) -> bool:
        """See `Method.wants_pairs`."""
        return self.settings.adapter != "none"

    def learner(self, setup: Setup) -> Learner:
        """See `Method.learner`."""
        return CloseLearner(setup, self.settings)

    def score_images(self, state: State, features: ImageFeatures, kappa: float) -> Scores:
        """The head's scores of the image, and of its positions, weighted by their softmax."""
        of_global = head_scores(state, features.pooled)
        positions = in_context(features.pooled, features.dense, self.settings.context)
        of_local = pooled(head_scores(state, positions), kappa)
        merged = of_local + self.settings.global_weight * of_global
        return {"global": of_global, "local": of_local, "merged": merged}

    def score_captions(self, state: State, batch: SentenceBatch) -> Scores:
        """As in training, without noise."""
        return {"merged": head_scores(state, batch.features)}

    def class_vectors(self, state: State) -> Mapping[str, Tensor]:
        """The class vectors without their mean, for both branches."""
        found = centred(state["classes"])
        return {"global": found, "local": found}

    def shapes(self, classes: int, dim: int) -> Mapping[str, tuple[int, ...]]:
        """See `Method.shapes`."""
        hidden = self.settings.hidden
        return {
            "classes": (classes, dim),
            "inner": (hidden, dim),
            "bias": (hidden,),
            "outer": (dim, hidden),
        }
