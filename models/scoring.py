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
    return pooled(F.normalize(dense, dim=-1) @ F.normalize(prompts, dim=-1).T, kappa)


def pooled(scores: Tensor, kappa: float) -> Tensor:
    """Scores [B, N, C] of N positions, weighted by their own softmax: [B, C]."""
    return ((kappa * scores).softmax(dim=1) * scores).sum(dim=1)


def packed_local_scores(tokens: PackedTokens, prompts: Tensor, kappa: float) -> Tensor:
    """`local_scores` [B, C] of captions of any lengths, differentiable in `prompts` [C, d].

    The few prompts are projected back instead of each token forward: <hW, L> = <h, LWᵀ>.
    """
    directions = F.normalize(prompts, dim=-1)
    if tokens.projection is not None:
        directions = directions @ tokens.projection.T
    cosines = (tokens.hidden.to(directions.dtype) @ directions.T) / tokens.norms[:, None]
    return packed_pooled(cosines, tokens.offsets, kappa)


def packed_pooled(scores: Tensor, offsets: Tensor, kappa: float) -> Tensor:
    """`pooled` [B, C] of scores [T, C] end to end; B's positions end at offsets [B + 1]."""
    captions, classes = len(offsets) - 1, scores.shape[1]
    lengths = offsets.diff()
    caption = torch.arange(captions, device=lengths.device).repeat_interleave(lengths)
    with torch.no_grad():
        highest = scores.new_full((captions, classes), float("-inf")).scatter_reduce(
            0, caption[:, None].expand(-1, classes), scores, "amax"
        )
    weights = (kappa * (scores - highest[caption])).exp()
    zeros = scores.new_zeros(captions, classes)
    total = zeros.index_add(0, caption, weights)
    return zeros.index_add(0, caption, weights * scores) / total


def centred(vectors: Tensor, others: Tensor | None = None) -> Tensor:
    """Class vectors [C, d] without their mean, which every image answers to; not normalised.

    `others` [K, d] are further vectors that the mean is taken over.
    """
    everything = vectors if others is None else torch.cat([vectors, others])
    return vectors - everything.mean(dim=0)


def centred_scores(
    pooled_feature: Tensor,
    dense: Tensor,
    global_: Tensor,
    local: Tensor,
    *,
    kappa: float,
    context: float,
) -> tuple[Tensor, Tensor]:
    """Global and local scores [B, C] with centred class vectors [C, d], which keep their lengths.

    Args:
        pooled_feature: [B, d] of the image.
        dense: [B, N, d] of its positions.
        global_: class vectors of the whole image.
        local: class vectors of its positions.
        kappa: scale of the softmax over positions.
        context: see `in_context`.

    """
    whole = F.normalize(pooled_feature, dim=-1)
    return whole @ global_.T, pooled(in_context(pooled_feature, dense, context) @ local.T, kappa)


def in_context(pooled_feature: Tensor, dense: Tensor, context: float) -> Tensor:
    """Positions' features [B, N, d] with a share of the image's [B, d], all of unit length.

    A position of a CLIP sees little of what is around it, a phrase of a caption says it.
    """
    positions = F.normalize(dense, dim=-1)
    if not context:
        return positions
    whole = F.normalize(pooled_feature, dim=-1)
    return F.normalize(positions + context * whole[:, None], dim=-1)


def merged_scores(global_: Tensor, local: Tensor) -> Tensor:
    """The mean of the two branches."""
    return (global_ + local) / 2


def dense_zero_shot_scores(dense: Tensor, embeddings: Tensor, logit_scale: float) -> Tensor:
    """Zero-shot CLIP on dense features [B, N, d] (METHODS 2), as cosines [B, C].

    The logits' softmax over positions weighs the logits; their mean is divided by `logit_scale`, so
    that it can be merged with the global cosines.
    """
    return local_scores(dense, embeddings, logit_scale)
