"""Scores of captions and images against prompts: the global and the local branch (METHODS 1, 2)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class PackedTokens:
    """Token features of B captions end to end, T tokens in all, without padding."""

    hidden: Tensor
    """[T, w] hidden states, or [T, d] projected features."""
    offsets: Tensor
    """[B + 1] int64: caption i's tokens are rows offsets[i] to offsets[i + 1]."""
    norms: Tensor
    """[T] L2 norm of each token's projected feature."""
    projection: Tensor | None = None
    """[w, d] from hidden states to the joint space; None where tokens are projected already."""


def global_scores(features: Tensor, prompts: Tensor) -> Tensor:
    """Cosines [B, C] of global features [B, d] with prompts [C, d]."""
    return F.normalize(features, dim=-1) @ F.normalize(prompts, dim=-1).T


def local_scores(dense: Tensor, prompts: Tensor, kappa: float) -> Tensor:
    """Sum over positions j of softmax_j(kappa P_ij) P_ij, for dense features [B, N, d]: [B, C]."""
    cosines = F.normalize(dense, dim=-1) @ F.normalize(prompts, dim=-1).T
    return ((kappa * cosines).softmax(dim=1) * cosines).sum(dim=1)


def packed_local_scores(tokens: PackedTokens, prompts: Tensor, kappa: float) -> Tensor:
    """`local_scores` [B, C] of captions of any lengths, differentiable in `prompts` [C, d].

    The few prompts are projected back instead of each token forward: <hW, L> = <h, LWᵀ>.
    """
    directions = F.normalize(prompts, dim=-1)
    if tokens.projection is not None:
        directions = directions @ tokens.projection.T
    cosines = (tokens.hidden.to(directions.dtype) @ directions.T) / tokens.norms[:, None]
    captions, classes = len(tokens.offsets) - 1, len(prompts)
    lengths = tokens.offsets.diff()
    caption = torch.arange(captions, device=lengths.device).repeat_interleave(lengths)
    with torch.no_grad():
        highest = cosines.new_full((captions, classes), -2.0).scatter_reduce(
            0, caption[:, None].expand(-1, classes), cosines, "amax"
        )
    weights = (kappa * (cosines - highest[caption])).exp()
    zeros = cosines.new_zeros(captions, classes)
    total = zeros.index_add(0, caption, weights)
    return zeros.index_add(0, caption, weights * cosines) / total


def merged_scores(global_: Tensor, local: Tensor) -> Tensor:
    """The mean of the two branches."""
    return (global_ + local) / 2


def dense_zero_shot_scores(dense: Tensor, embeddings: Tensor, logit_scale: float) -> Tensor:
    """Zero-shot CLIP on dense features [B, N, d] (METHODS 2), as cosines [B, C].

    The logits' softmax over positions weighs the logits; their mean is divided by `logit_scale`, so
    that it can be merged with the global cosines.
    """
    return local_scores(dense, embeddings, logit_scale)
