"""CoOp (Zhou et al., IJCV 2022): the contexts of prompts, learned from labelled images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from models.choices import LossName, Position
from models.lazily import lazily
from models.method import Learner, Method, Scores, Setup, State, Study, TrainedSettings
from models.studies import BLEND, FEW_SHOT, NOVEL_CLASSES

with lazily():
    import torch
    from torch import Tensor
    from torch.nn import functional as F

    from models.backbone import ImageFeatures
    from models.examples import ImageBatch
    from models.losses import CosineLoss
    from models.prompts import PromptLearner
    from models.scoring import global_scores

LOOKED_AT = 1024
"""Images whose mean cosine the losses with a bias start from."""


class ContextSettings(TrainedSettings):
    """Prompt tuning on labelled images that show several classes (PEERS 1)."""

    epochs: int = Field(50, ge=1, description="Times that all images are gone through.")
    batch: int = Field(32, ge=1, description="Images per step.")
    learning_rate: float = Field(2e-3, gt=0, description="Base rate of the schedule.")
    contexts: int = Field(16, ge=1, le=64, description="Context tokens M of each prompt.")
    words: str = Field(
        "", description="What the contexts are at first, such as 'a photo of a'; empty: random."
    )
    class_specific: bool = Field(False, description="One set of contexts per class.")
    position: Position = Field(
        "end", description="Where the class name stands among the contexts: front, middle, end."
    )
    loss: LossName = Field("ranking", description="ranking, bce or asl.")
    margin: float = Field(1.0, gt=0, description="Ranking loss's margin m, on scaled cosines.")
    scale: float = Field(4.0, gt=0, description="Factor s on the cosines of the ranking loss.")
    gain: float = Field(
        20.0, gt=0, description="Factor a on the cosines of bce and asl at first; it is learned."
    )


class ContextTuning(Learner):
    """The loss of global cosines on a batch of images, in the contexts."""

    def __init__(self, setup: Setup, settings: ContextSettings) -> None:
        super().__init__(settings)
        self.prompts = PromptLearner(
            setup.backbone,
            setup.names,
            contexts=settings.contexts,
            sets=1,
            class_specific=settings.class_specific,
            position=settings.position,
            words=settings.words,
            generator=setup.generator,
        )
        self.loss_of = CosineLoss(
            settings.loss, margin=settings.margin, scale=settings.scale, gain=settings.gain
        ).to(setup.backbone.device)

    def prepare(self, examples: Any, rows: Tensor, device: torch.device) -> None:
        """Start losses that have a bias at the images' mean cosine."""
        batch: ImageBatch = examples.batch(rows[:LOOKED_AT], device)
        with torch.no_grad():
            cosines = global_scores(batch.features.pooled, self.prompts()[0])
        self.loss_of.start(float(cosines.mean()))

    def loss(self, batch: ImageBatch, generator: torch.Generator) -> Tensor:
        """See `Learner.loss`."""
        del generator
        cosines = global_scores(batch.features.pooled, self.prompts()[0])
        found: Tensor = self.loss_of(cosines, batch.labels)
        return found

    def state(self) -> State:
        """The contexts, and the prompts [C, d] as the tower encodes them, of unit length."""
        with torch.no_grad():
            (classes,) = self.prompts()
        return {
            "context": self.prompts.context.detach().cpu(),
            "classes": F.normalize(classes, dim=-1).cpu(),
        }


class CoOp(Method):
    """The contexts of one prompt per class, learned from images with any number of labels.

    >>> method = CoOp(CoOp.Settings(words="a photo of a", epochs=1))
    >>> learner = method.learner(setup)
    >>> learner.loss(labelled.whole, setup.generator).backward()

    """

    name = "coop"
    summary = "one prompt per class, its contexts learned from labelled images"
    learns_from = "labelled images"
    needs = frozenset({"causal text tower", "text tower"})
    Settings = ContextSettings
    settings: ContextSettings
    studies: ClassVar[tuple[Study, ...]] = (FEW_SHOT, NOVEL_CLASSES, BLEND)

    def learner(self, setup: Setup) -> Learner:
        """See `Method.learner`."""
        return ContextTuning(setup, self.settings)

    def score_images(self, state: State, features: ImageFeatures, kappa: float) -> Scores:
        """Cosines with CLIP's own global feature."""
        del kappa
        scores = global_scores(features.pooled, state["classes"])
        return {"global": scores, "merged": scores}

    def class_vectors(self, state: State) -> Mapping[str, Tensor]:
        """The prompts."""
        return {"global": state["classes"]}

    def shapes(self, classes: int, dim: int) -> Mapping[str, tuple[int, ...]]:
        """See `Method.shapes`."""
        return {"classes": (classes, dim)}
