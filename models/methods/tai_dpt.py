"""TaI-DPT (Guo et al., CVPR 2023): global and local prompts tuned on captions, used on images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from models.choices import LossName, Position
from models.lazily import lazily
from models.method import Learner, Method, Scores, Setup, State, Study, TrainedSettings
from models.studies import BLEND, FEW_SHOT, NOVEL_CLASSES, PARTIAL_LABELS

with lazily():
    import torch
    from torch import Tensor

    from models.backbone import ImageFeatures
    from models.examples import CaptionBatch
    from models.losses import loss_on_cosines
    from models.prompts import PromptLearner
    from models.scoring import global_scores, local_scores, merged_scores, packed_local_scores


class PromptSettings(TrainedSettings):
    """Prompt tuning on captions (METHODS 1)."""

    contexts: int = Field(16, ge=1, le=64, description="Context tokens M of each prompt.")
    class_specific: bool = Field(False, description="One set of contexts per class.")
    position: Position = Field(
        "end", description="Where the class name stands among the contexts: front, middle, end."
    )
    kappa: float = Field(50.0, gt=0, description="Local softmax's scale on captions.")
    loss: LossName = Field("ranking", description="Loss of each branch: ranking, bce or asl.")
    margin: float = Field(1.0, gt=0, description="Ranking loss's margin m, on scaled cosines.")
    scale: float = Field(4.0, gt=0, description="Factor s on the cosines inside the loss.")


class PromptTuning(Learner):
    """The training objective: one loss of both branches' scores on a batch of captions."""

    def __init__(self, setup: Setup, settings: PromptSettings) -> None:
        super().__init__(settings)
        self.prompts = PromptLearner(
            setup.backbone,
            setup.names,
            contexts=settings.contexts,
            class_specific=settings.class_specific,
            position=settings.position,
            generator=setup.generator,
        )
        # not torch.compile: on a CPU, inductor of torch 2.14 gives prompts that are off by 16 %
        self.kappa = settings.kappa
        self.loss_of = loss_on_cosines(settings.loss, margin=settings.margin, scale=settings.scale)

    def loss(self, batch: CaptionBatch, generator: torch.Generator) -> Tensor:
        """See `Learner.loss`."""
        del generator
        global_prompts, local_prompts = self.prompts()
        of_global = global_scores(batch.global_, global_prompts)
        of_local = packed_local_scores(batch.tokens, local_prompts, self.kappa)
        return self.loss_of(of_global, batch.labels) + self.loss_of(of_local, batch.labels)

    def state(self) -> State:
        """The contexts, and both sets of prompts [C, d] as the tower encodes them."""
        with torch.no_grad():
            global_prompts, local_prompts = self.prompts()
        return {
            "context": self.prompts.context.detach().cpu(),
            "global": global_prompts.contiguous().cpu(),
            "local": local_prompts.contiguous().cpu(),
        }


class TaIDPT(Method):
    """Global and local prompts tuned on captions, whose words are their labels; last epoch.

    >>> method = TaIDPT(TaIDPT.Settings(contexts=2, epochs=1))
    >>> learner = method.learner(setup)
    >>> learner.loss(captions, setup.generator).backward()

    """

    name = "tai-dpt"
    summary = "global and local prompts, learned from captions"
    learns_from = "captions"
    needs = frozenset({"causal text tower", "text tower", "dense features"})
    Settings = PromptSettings
    settings: PromptSettings
    studies: ClassVar[tuple[Study, ...]] = (
        Study(
            "losses",
            "Which loss?",
            "loss",
            {loss: {"methods.tai-dpt.loss": loss} for loss in ("bce", "asl", "ranking")},
        ),
        Study(
            "captions",
            "How many captions, without template sentences?",
            "captions",
            {
                str(count): {"captions.most": count, "captions.templates": False}
                for count in (250, 1000, 4000)
            },
            seeds=3,
        ),
        Study(
            "prompts",
            "Global prompts alone, or local ones too?",
            "prompts",
            {"single": {"run": ["tai"]}, "double": {"run": ["tai-dpt"]}},
        ),
        Study(
            "sharing",
            "Contexts of all classes together, or each class's own?",
            "contexts",
            {
                "shared": {"methods.tai-dpt.class_specific": False},
                "class-specific": {"methods.tai-dpt.class_specific": True},
            },
        ),
        Study(
            "length",
            "How many context tokens?",
            "context tokens M",
            {str(count): {"methods.tai-dpt.contexts": count} for count in (2, 4, 8, 16, 32)},
        ),
        Study(
            "position",
            "Where does the class name stand?",
            "class name",
            {place: {"methods.tai-dpt.position": place} for place in ("front", "middle", "end")},
        ),
        FEW_SHOT,
        PARTIAL_LABELS,
        NOVEL_CLASSES,
        BLEND,
    )

    def learner(self, setup: Setup) -> Learner:
        """See `Method.learner`."""
        return PromptTuning(setup, self.settings)

    def score_images(self, state: State, features: ImageFeatures, kappa: float) -> Scores:
        """Cosines with the feature pooled without positions, and with those of every place."""
        of_global = global_scores(features.pooled_plain, state["global"])
        of_local = local_scores(features.dense, state["local"], kappa)
        merged = merged_scores(of_global, of_local)
        return {"global": of_global, "local": of_local, "merged": merged}

    def score_captions(self, state: State, batch: CaptionBatch) -> Scores:
        """As in training."""
        of_global = global_scores(batch.global_, state["global"])
        of_local = packed_local_scores(batch.tokens, state["local"], self.settings.kappa)
        merged = merged_scores(of_global, of_local)
        return {"global": of_global, "local": of_local, "merged": merged}

    def class_vectors(self, state: State) -> Mapping[str, Tensor]:
        """The prompts of either branch."""
        return {"global": state["global"], "local": state["local"]}

    def shapes(self, classes: int, dim: int) -> Mapping[str, tuple[int, ...]]:
        """See `Method.shapes`."""
        return {"global": (classes, dim), "local": (classes, dim)}
