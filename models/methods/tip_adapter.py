"""Tip-Adapter and Tip-Adapter-F (Zhang et al., ECCV 2022): labelled images as a cache of keys."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Final, Literal

from pydantic import Field

from models.lazily import lazily
from models.method import (
    Learner,
    Method,
    MethodSettings,
    Scores,
    Setup,
    State,
    Study,
    TrainedSettings,
)
from models.metrics import average_precisions
from models.studies import FEW_SHOT, NOVEL_CLASSES
from models.templates import PLAIN, clip_templates

with lazily():
    import torch
    from torch import Tensor
    from torch.nn import functional as F

    from models.backbone import ImageFeatures
    from models.examples import ImageBatch, Images
    from models.losses import asymmetric_loss, ranking_loss
    from models.prompts import class_embeddings
    from models.scoring import global_scores

ALPHAS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
BETAS: Final = (0.5, 1.0, 2.0, 5.5, 10.0)
START: Final = (1.17, 1.0)
"""Alpha and beta that the paper starts from, where shots are too few to choose by."""
SCALE: Final = 100.0
"""Factor on the cosines with classes, as in the paper."""


class _CacheSettings(MethodSettings):
    """What both methods have."""

    alpha: float | None = Field(
        None, ge=0, description="Weight of the cache; by default chosen by leave-one-out."
    )
    beta: float | None = Field(
        None, gt=0, description="Sharpness of the affinities; by default chosen by leave-one-out."
    )
    templates: Literal["plain", "clip"] = Field(
        "plain", description="“a photo of a …” alone, or the mean of CLIP's 80 sentences."
    )
    views: int = Field(
        0,
        ge=0,
        le=64,
        description="Random crops of each labelled image whose mean is its key, 10 in the paper; "
        "0: the image as it is.",
    )


class TipSettings(_CacheSettings):
    """A cache of labelled images."""


class TrainedTipSettings(_CacheSettings, TrainedSettings):
    """A cache whose keys are trained."""

    epochs: int = Field(20, ge=1, description="Times that all images are gone through.")
    batch: int = Field(256, ge=1, description="Images per step.")
    learning_rate: float = Field(1e-3, gt=0, description="AdamW's rate at first; a cosine by step.")
    loss: Literal["ranking", "asl"] = Field(
        "ranking", description="Loss of several labels, in place of the paper's cross-entropy."
    )


class TipAdapter(Method):
    """CLIP's score of an image plus that of the labelled images that it resembles; no training.

    100 <f, w_c> + alpha * sum over shots k of exp(-beta (1 - <f, key_k>)) * value_kc. An image has
    several labels, so values are multi-hot, and those of a class share a sum of 1, however many
    images show it. Alpha and beta are those of the highest mAP on the shots, each scored without
    its own key; no other image is looked at.

    >>> method = TipAdapter()
    >>> state = method.fit(setup, labelled)
    >>> sorted(method.score_images(state, images.features, kappa=10.0))
    ['merged']

    """

    name = "tip-adapter"
    summary = "CLIP, and the labelled images that an image resembles; nothing is trained"
    learns_from = "labelled images"
    needs = frozenset({"text tower"})
    Settings: ClassVar[type[MethodSettings]] = TipSettings
    settings: _CacheSettings
    studies: ClassVar[tuple[Study, ...]] = (FEW_SHOT, NOVEL_CLASSES)

    def views(self) -> int:
        """See `Method.views`."""
        return self.settings.views

    def fit(self, setup: Setup, examples: Images) -> State:
        """The cache, and alpha and beta."""
        return _cache(setup, self.settings, examples, torch.arange(len(examples)))

    def score_images(self, state: State, features: ImageFeatures, kappa: float) -> Scores:
        """CLIP's logits plus the cache's."""
        del kappa
        return {"merged": _logits(F.normalize(features.pooled, dim=-1), state)}

    def check_state(self, state: State, classes: int, dim: int) -> None:
        """See `Method.check_state`; there may be any number of keys."""
        super().check_state(state, classes, dim)
        for name, columns in (("keys", dim), ("values", classes)):
            found = tuple(state[name].shape) if name in state else ()
            if len(found) != 2 or found[1] != columns or found[0] != len(state["keys"]):
                raise ValueError(f"tensor {name!r} of shape {found}; expected (shots, {columns})")

    def shapes(self, classes: int, dim: int) -> Mapping[str, tuple[int, ...]]:
        """See `Method.shapes`."""
        return {"classes": (classes, dim), "alpha": (), "beta": ()}


class TipLearner(Learner):
    """The cache's keys as a linear layer; values and class vectors stay as they are."""

    settings: TrainedTipSettings

    def __init__(self, setup: Setup, settings: TrainedTipSettings) -> None:
        super().__init__(settings)
        self._setup = setup
        self._cache: dict[str, Tensor] = {}
        self.keys = torch.nn.Parameter(torch.zeros(0, setup.backbone.dim))

    def prepare(self, examples: Images, rows: Tensor, device: torch.device) -> None:
        """The keys start as the images' features; alpha and beta are chosen by them."""
        cache = _cache(self._setup, self.settings, examples, rows)
        self._cache = {name: tensor.to(device) for name, tensor in cache.items()}
        self.keys = torch.nn.Parameter(self._cache["keys"].clone())

    def loss(self, batch: ImageBatch, generator: torch.Generator) -> Tensor:
        """The settings' loss of the logits' known labels."""
        del generator
        queries = F.normalize(batch.features.pooled, dim=-1)
        logits = _logits(queries, {**self._cache, "keys": self.keys})
        labels, known = batch.labels == 1, batch.labels >= 0
        if self.settings.loss == "asl":
            return asymmetric_loss(logits, labels, known=known)
        return ranking_loss(logits, labels, scale=1.0, known=known)

    def state(self) -> State:
        """The cache with its keys as they are trained, not normalised again."""
        return {name: each.cpu() for name, each in self._cache.items()} | {
            "keys": self.keys.detach().cpu()
        }

    def optimiser(self) -> torch.optim.Optimizer:
        """AdamW, as the paper's code has it."""
        return torch.optim.AdamW(self.parameters(), lr=1.0, eps=1e-4)

    def rate(self, epoch: int, step: int, steps: int) -> float:
        """Half a cosine from the base rate to 0, by step."""
        place = (epoch * steps + step) / (self.settings.epochs * steps)
        return self.settings.learning_rate * (1 + math.cos(math.pi * place)) / 2


class TipAdapterF(TipAdapter):
    """Tip-Adapter whose keys are trained on the labelled images, from their features on.

    The last epoch counts; the paper takes the best one on the test images.

    >>> method = TipAdapterF(TipAdapterF.Settings(epochs=1))
    >>> learner = method.learner(setup)
    >>> learner.prepare(labelled, torch.arange(len(labelled)), setup.backbone.device)
    >>> learner.loss(images, setup.generator).backward()

    """

    name = "tip-adapter-f"
    summary = "Tip-Adapter, its keys trained on the labelled images"
    Settings = TrainedTipSettings
    settings: TrainedTipSettings

    def learner(self, setup: Setup) -> Learner:
        """See `Method.learner`."""
        return TipLearner(setup, self.settings)


def _cache(
    setup: Setup, settings: _CacheSettings, examples: Images, rows: Tensor
) -> dict[str, Tensor]:
    """Keys [K, d] of unit length, values [K, C], class vectors [C, d], alpha and beta."""
    cpu = torch.device("cpu")
    batch = examples.batch(rows, cpu)
    looks = [examples.view(number, rows, cpu) for number in range(settings.views)]
    unit = [F.normalize(look.pooled, dim=-1) for look in looks or [batch.features]]
    keys, shown = F.normalize(torch.stack(unit).mean(dim=0), dim=-1), batch.labels == 1
    templates = clip_templates() if settings.templates == "clip" else [PLAIN.format]
    classes = class_embeddings(setup.backbone, setup.names, templates).cpu()
    alpha, beta = leave_one_out(
        keys,
        batch.labels,
        classes,
        ALPHAS if settings.alpha is None else (settings.alpha,),
        BETAS if settings.beta is None else (settings.beta,),
    )
    return {
        "keys": keys,
        "values": shown.to(keys.dtype) / shown.sum(dim=0).clamp(min=1),
        "classes": classes,
        "alpha": keys.new_tensor(alpha),
        "beta": keys.new_tensor(beta),
    }


def _logits(queries: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    """[B, C] of queries [B, d] of unit length."""
    affinities = (-state["beta"] * (1 - queries @ state["keys"].T)).exp()
    cached = affinities @ state["values"]
    return SCALE * global_scores(queries, state["classes"]) + state["alpha"] * cached


def leave_one_out(
    keys: Tensor,
    labels: Tensor,
    classes: Tensor,
    alphas: tuple[float, ...],
    betas: tuple[float, ...],
) -> tuple[float, float]:
    """Alpha and beta of the highest mAP on the shots, each scored by the cache of the others.

    Args:
        keys: [K, d] of unit length.
        labels: [K, C], 1, 0 or -1.
        classes: [C, d].
        alphas: to choose from; of equal ones the first, likewise `betas`.
        betas: to choose from.

    A class that one image alone shows has an empty cache where that image is scored, which says
    nothing of alpha and beta: it is left out. With no other class they are the paper's first ones.

    """
    if len(alphas) == len(betas) == 1:
        return alphas[0], betas[0]
    shown = (labels == 1).to(keys.dtype)
    several = shown.sum(dim=0) > 1
    if not several.any():
        return (
            START[0] if len(alphas) > 1 else alphas[0],
            START[1] if len(betas) > 1 else betas[0],
        )
    cosines = keys @ keys.T
    of_text = SCALE * global_scores(keys, classes)[:, several]
    # the others' share: a class's values sum to 1 over the images that are left
    others = (shown.sum(dim=0) - shown).clamp(min=1)
    best, found = -1.0, (alphas[0], betas[0])
    for beta in betas:
        affinities = (-beta * (1 - cosines)).exp().fill_diagonal_(0)
        cached = (affinities @ shown / others)[:, several]
        for alpha in alphas:
            precisions = average_precisions(of_text + alpha * cached, labels[:, several])
            value = float(precisions.nanmean())
            if value > best:
                best, found = value, (alpha, beta)
    return found
