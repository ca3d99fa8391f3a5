"""Losses on scores [B, C] and multi-hot labels [B, C] (METHODS 1, 3)."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

LossName = Literal["ranking", "bce", "asl"]
Loss = Callable[[Tensor, Tensor], Tensor]


def loss_on_cosines(name: LossName, *, margin: float, scale: float) -> Loss:
    """A loss of cosines and labels [B, C]; the logits of BCE and ASL are scale x cosine."""
    losses: dict[LossName, Loss] = {
        "ranking": lambda scores, labels: ranking_loss(scores, labels, margin=margin, scale=scale),
        "bce": lambda scores, labels: bce_loss(scale * scores, labels),
        "asl": lambda scores, labels: asymmetric_loss(scale * scores, labels),
    }
    return losses[name]


def ranking_loss(
    scores: Tensor,
    labels: Tensor,
    *,
    margin: float = 1.0,
    scale: float = 4.0,
    known: Tensor | None = None,
) -> Tensor:
    """Sum of max(0, m - s p_i + s p_j) over a row's (positive i, negative j), mean over rows.

    TaI-DPT, equation 5 with the public code's scale s. A row without positives adds 0, and so does
    a label that is not `known` [B, C]. Memory is [positives, C], not [B, C, C].
    """
    rows, positives = labels.nonzero(as_tuple=True)
    higher = scores[rows, positives, None]
    hinge = F.relu(margin - scale * (higher - scores[rows]))
    is_left_out = labels if known is None else labels | ~known
    return hinge.masked_fill(is_left_out[rows], 0.0).sum() / len(scores)


def bce_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy on logits, mean over all entries."""
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))


def asymmetric_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    gamma_negative: float = 2.0,
    gamma_positive: float = 1.0,
    clip: float = 0.05,
    known: Tensor | None = None,
) -> Tensor:
    """Asymmetric loss (Ridnik et al., ICCV 2021), summed over known classes, mean over rows."""
    positive = logits.sigmoid()
    negative = (1 - positive + clip).clamp(max=1.0)
    of_positives = (1 - positive) ** gamma_positive * F.logsigmoid(logits)
    of_negatives = (1 - negative) ** gamma_negative * negative.clamp(min=1e-8).log()
    losses = -torch.where(labels.bool(), of_positives, of_negatives)
    return (losses if known is None else losses.masked_fill(~known, 0.0)).sum() / len(logits)
