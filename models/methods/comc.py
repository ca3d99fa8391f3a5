"""CoMC (Liu et al., ICML 2024): a linear head on noisy caption vectors, and a cross-modal map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from models.lazily import lazily
from models.method import Learner, Method, Scores, Setup, State, TrainedSettings
from models.templates import PLAIN, clip_templates

with lazily():
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    from models.backbone import ImageFeatures
    from models.examples import SentenceBatch
    from models.losses import ranking_loss
    from models.noise import noisy
    from models.prompts import class_embeddings
    from models.scoring import merged_scores, pooled


class CoMCSettings(TrainedSettings):
    """A linear head and how images are brought near texts."""

    learning_rate: float = Field(1e-3, gt=0, description="Adam's base rate of the schedule.")
    cosine: float = Field(
        0.3, gt=0, le=1, description="Cosine of a caption's vector with noise to itself; 1: none."
    )
    templates: Literal["plain", "clip"] = Field(
        "plain", description="Class vectors: “a photo of a …” alone, or CLIP's 80 sentences' mean."
    )
    start: float = Field(
        1.0, ge=0, description="Length of the class vectors that the head starts at; 0: at nothing."
    )
    weight_decay: float = Field(5e-4, ge=0, description="Adam's, as added to the gradient.")
    margin: float = Field(1.0, gt=0, description="Ranking loss's margin on the head's logits.")
    map_weight: float = Field(
        0.3, ge=0, le=1, description="Share of an image's feature that its map to texts replaces."
    )
    map_scale: float = Field(
        100.0, gt=0, description="Scale of the softmax over classes that maps images to texts."
    )
    pool: Literal["max", "softmax"] = Field(
        "max", description="Positions' logits: their greatest, or weighted by their softmax."
    )


class LinearHead(Learner):
    """Weights [C, d] without bias, whose logits rank a noisy caption's classes."""

    settings: CoMCSettings

    def __init__(self, setup: Setup, settings: CoMCSettings) -> None:
        super().__init__(settings)
        templates = clip_templates() if settings.templates == "clip" else [PLAIN.format]
        self.classes = class_embeddings(setup.backbone, setup.names, templates)
        self.weight = nn.Parameter(settings.start * self.classes)

    def start_from(self, before: State, rows: Tensor) -> None:
        """See `Learner.start_from`."""
        known = rows >= 0
        with torch.no_grad():
            self.weight[known] = before["weight"][rows[known]].to(self.weight)

    def loss(self, batch: SentenceBatch, generator: torch.Generator) -> Tensor:
        """Ranking loss of logits W (t + s e); the noisy vector is not normalised."""
        logits = noisy(batch.features, self.settings.cosine, generator) @ self.weight.T
        return ranking_loss(logits, batch.labels, margin=self.settings.margin, scale=1.0)

    def optimiser(self) -> torch.optim.Optimizer:
        """Adam, as in the public code."""
        return torch.optim.Adam(self.parameters(), lr=1.0, weight_decay=self.settings.weight_decay)

    def state(self) -> State:
        """The head, and the class vectors that images are mapped by."""
        return {"weight": self.weight.detach().cpu(), "classes": self.classes.cpu()}


class CoMC(Method):
    """A linear head learned from captions' vectors with noise, in seconds: no text tower in a step.

    An image's feature, and each position's, is moved towards the texts: in part it is replaced by
    the class vectors' mean, weighted by how near each of them is.

    >>> method = CoMC(CoMC.Settings(epochs=1))
    >>> learner = method.learner(setup)
    >>> learner.loss(sentences, setup.generator).backward()

    """

    name = "comc"
    summary = "a linear head on captions' vectors with noise, images mapped to texts"
    learns_from = "captions"
    reads = "sentences"
    starts_warm = True
    needs = frozenset({"text tower", "dense features"})
    Settings = CoMCSettings
    settings: CoMCSettings

    def learner(self, setup: Setup) -> Learner:
        """See `Method.learner`."""
        return LinearHead(setup, self.settings)

    def score_images(self, state: State, features: ImageFeatures, kappa: float) -> Scores:
        """Logits of the mapped features: the image's, and the positions' greatest."""
        of_global = self._mapped(features.pooled_plain, state["classes"]) @ state["weight"].T
        logits = self._mapped(features.dense, state["classes"]) @ state["weight"].T
        greatest = self.settings.pool == "max"
        of_local = logits.amax(dim=1) if greatest else pooled(logits, kappa)
        merged = merged_scores(of_global, of_local)
        return {"global": of_global, "local": of_local, "merged": merged}

    def score_captions(self, state: State, batch: SentenceBatch) -> Scores:
        """As in training, without noise."""
        return {"merged": batch.features @ state["weight"].T}

    def class_vectors(self, state: State) -> Mapping[str, Tensor]:
        """The head's rows for both branches."""
        return {"global": state["weight"], "local": state["weight"]}

    def shapes(self, classes: int, dim: int) -> Mapping[str, tuple[int, ...]]:
        """See `Method.shapes`."""
        return {"weight": (classes, dim), "classes": (classes, dim)}

    def _mapped(self, features: Tensor, classes: Tensor) -> Tensor:
        """(1 - r) f + r normalise(sum_c softmax_c(k <f, T_c>) T_c), with f of unit length."""
        unit = F.normalize(features, dim=-1)
        share = self.settings.map_weight
        if not share:
            return unit
        weights = (self.settings.map_scale * (unit @ classes.T)).softmax(dim=-1)
        return (1 - share) * unit + share * F.normalize(weights @ classes, dim=-1)
