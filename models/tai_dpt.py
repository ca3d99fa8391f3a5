"""TaI-DPT (Guo et al., CVPR 2023): global and local prompts tuned on captions, used on images."""

from dataclasses import dataclass

from torch import Tensor, nn

from models.losses import Loss
from models.prompts import PromptLearner
from models.scoring import (
    PackedTokens,
    global_scores,
    local_scores,
    merged_scores,
    packed_local_scores,
)


@dataclass(frozen=True)
class CaptionBatch:
    """Frozen features and labels of B captions."""

    global_: Tensor
    """[B, d] L2-normalised."""
    tokens: PackedTokens
    labels: Tensor
    """[B, C] booleans."""


class TaIDPT(nn.Module):
    """The training objective: one loss of both branches' scores on a batch of captions."""

    def __init__(
        self,
        learner: PromptLearner,
        *,
        tokens_are_projected: bool,
        kappa: float,
        loss: Loss,
    ) -> None:
        super().__init__()
        self.learner = learner
        self.tokens_are_projected = tokens_are_projected
        self.kappa, self.loss = kappa, loss

    def forward(self, batch: CaptionBatch) -> Tensor:
        """Scalar loss, differentiable in the contexts."""
        global_prompts, local_prompts = self.learner()
        projection = None if self.tokens_are_projected else self.learner.backbone.projection
        of_global = global_scores(batch.global_, global_prompts)
        of_local = packed_local_scores(batch.tokens, local_prompts, projection, self.kappa)
        return self.loss(of_global, batch.labels) + self.loss(of_local, batch.labels)


def image_scores(
    global_: Tensor, dense: Tensor, prompts: Tensor, kappa: float
) -> dict[str, Tensor]:
    """Scores [B, C] of images by branch, from features [B, d], [B, N, d] and prompts [2, C, d]."""
    of_global = global_scores(global_, prompts[0])
    of_local = local_scores(dense, prompts[1], kappa)
    return {
        "global": of_global,
        "local": of_local,
        "merged": merged_scores(of_global, of_local),
    }
