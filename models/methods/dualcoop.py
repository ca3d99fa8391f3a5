"""DualCoOp (Sun et al., NeurIPS 2022): a prompt for a class and one against it, by place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal

from pydantic import Field, model_validator

from models.lazily import lazily
from models.method import Learner, Method, Scores, Setup, State, Study, TrainedSettings
from models.studies import PARTIAL_LABELS

with lazily():
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    from models.backbone import ImageFeatures
    from models.examples import ImageBatch
    from models.losses import focused_loss
    from models.prompts import PromptLearner

RECIPES: Final[Mapping[str, Mapping[str, Any]]] = {
    "original": {"batch": 32, "scale": 100.0, "sharpness": 20.0},
    # e^3.91 and e^3, as the public code writes them
    "reproduction": {"batch": 64, "scale": 49.9, "sharpness": 20.1},
}


class DualSettings(TrainedSettings):
    """Dual prompt tuning on partly labelled images (PEERS 4)."""

    recipe: Literal["original", "reproduction"] = Field(
        "original",
        description="DualCoOp's own settings (both scales fixed, the batch's losses summed times "
        "`weight`), or those of TaI's reproduction (both scales learned, their mean over images); "
        "batch, scale and sharpness follow it.",
    )
    epochs: int = Field(50, ge=1, description="Times that all images are gone through.")
    batch: int = Field(32, ge=1, description="Images per step; 64 in the reproduction.")
    learning_rate: float = Field(
        2e-3, gt=0, description="Base rate of the schedule; the original has 1e-3 on VOC2007."
    )
    contexts: int = Field(16, ge=1, le=64, description="Context tokens M of each prompt.")
    words: str = Field(
        "",
        description='What both contexts are at first, for example "a photo of a"; their number is '
        "then its own. Drawn where empty, as published.",
    )
    class_specific: bool = Field(
        True, description="Contexts of each class's own; shared is better with very few labels."
    )
    scale: float = Field(
        100.0, gt=0, description="Factor on pooled cosines; 49.9 in the reproduction, at first."
    )
    sharpness: float = Field(
        20.0, gt=0, description="Factor on cosines in the softmax over positions."
    )
    weight: float = Field(
        0.03, gt=0, description="The original's weight of the loss; larger for fewer labels."
    )

    @model_validator(mode="before")
    @classmethod
    def _follow_recipe(cls, values: Any) -> Any:
        recipe = RECIPES.get(values.get("recipe", "")) if isinstance(values, Mapping) else None
        return {**recipe, **values} if recipe else values


class DualTuning(Learner):
    """The asymmetric loss of known labels, in both sets of contexts (and both scales)."""

    settings: DualSettings
    log_scale: Tensor
    log_sharpness: Tensor

    def __init__(self, setup: Setup, settings: DualSettings) -> None:
        super().__init__(settings)
        self.prompts = PromptLearner(
            setup.backbone,
            setup.names,
            contexts=settings.contexts,
            sets=2,
            class_specific=settings.class_specific,
            words=settings.words,
            generator=setup.generator,
        )
        if settings.class_specific:
            # all classes start alike, so that the order of classes has no say
            with torch.no_grad():
                self.prompts.context.copy_(self.prompts.context[:, :1].clone())
        self.log_scale, self.log_sharpness = (
            torch.tensor(value, device=setup.backbone.device).log()
            for value in (settings.scale, settings.sharpness)
        )
        if settings.recipe == "reproduction":
            self.log_scale = nn.Parameter(self.log_scale)
            self.log_sharpness = nn.Parameter(self.log_sharpness)

    def loss(self, batch: ImageBatch, generator: torch.Generator) -> Tensor:
        """See `Learner.loss`."""
        del generator
        positive, negative = self.prompts()
        scale, sharpness = self.log_scale.exp(), self.log_sharpness.exp()
        logits = dual_logits(batch.features.dense, positive, negative, scale, sharpness)
        if self.settings.recipe == "original":
            return self.settings.weight * focused_loss(logits, batch.labels, least=1e-6)
        return focused_loss(logits, batch.labels, least=1e-8) / len(logits)

    def state(self) -> State:
        """Both contexts, both prompts [C, d] as the tower encodes them, both scales."""
        with torch.no_grad():
            positive, negative = self.prompts()
        return {
            "context": self.prompts.context.detach().cpu(),
            "positive": positive.contiguous().cpu(),
            "negative": negative.contiguous().cpu(),
            "scale": self.log_scale.detach().exp().cpu(),
            "sharpness": self.log_sharpness.detach().exp().cpu(),
        }


class DualCoOp(Method):
    """A positive and a negative prompt per class on dense features; unknown labels are left out.

    >>> method = DualCoOp(DualCoOp.Settings(recipe="reproduction", epochs=1))
    >>> learner = method.learner(setup)
    >>> learner.loss(labelled.whole, setup.generator).backward()

    """

    name = "dualcoop"
    summary = "a positive and a negative prompt per class, learned from partly labelled images"
    learns_from = "labelled images"
    needs = frozenset({"causal text tower", "text tower", "dense features"})
    Settings = DualSettings
    settings: DualSettings
    studies: ClassVar[tuple[Study, ...]] = (PARTIAL_LABELS,)

    def learner(self, setup: Setup) -> Learner:
        """See `Method.learner`."""
        return DualTuning(setup, self.settings)

    def score_images(self, state: State, features: ImageFeatures, kappa: float) -> Scores:
        """Logits of a class being shown; their sigmoid, the published score, ranks alike."""
        del kappa
        found = dual_logits(
            features.dense,
            state["positive"],
            state["negative"],
            state["scale"],
            state["sharpness"],
        )
        return {"local": found, "merged": found}

    def class_vectors(self, state: State) -> Mapping[str, Tensor]:
        """The positive prompts, which say where to look."""
        return {"local": state["positive"]}

    def shapes(self, classes: int, dim: int) -> Mapping[str, tuple[int, ...]]:
        """See `Method.shapes`."""
        prompts = {"positive": (classes, dim), "negative": (classes, dim)}
        return {**prompts, "scale": (), "sharpness": ()}


def dual_logits(
    dense: Tensor, positive: Tensor, negative: Tensor, scale: Tensor, sharpness: Tensor
) -> Tensor:
    """Logits [B, C]: scale x (mean positive cosine - mean negative cosine) over positions.

    Both means are weighted by the softmax over positions of sharpness x the positive cosine.

    Args:
        dense: [B, N, d].
        positive: [C, d] prompts for the classes.
        negative: [C, d] prompts against them.
        scale: scalar.
        sharpness: scalar.

    """
    places = F.normalize(dense, dim=-1)
    towards = places @ F.normalize(positive, dim=-1).T
    against = places @ F.normalize(negative, dim=-1).T
    weights = (sharpness * towards).softmax(dim=1)
    return scale * (weights * (towards - against)).sum(dim=1)
