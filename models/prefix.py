"""Captions through the frozen text tower, without any work that cannot matter.

The tower is causal, so the tokens that stand first in every sequence have the same hidden states in
all of them: they go through the tower once. The rest of each sequence follows, packed end to end
and grouped by length, so that there is no padding. All of it is exact.
"""

from dataclasses import dataclass

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor
from torch.nn import functional as F

from models.layers import joint_projections, rest_of_layer


@dataclass(frozen=True)
class Layout:
    """Where sequences lie in packed rows: the prefix, then groups of sequences of one length."""

    prefix: int
    """P, rows of the shared prefix; there may be none."""
    groups: tuple[tuple[int, int], ...]
    """(sequences, length after the prefix) of each group, in the order of their rows."""


def encode_packed(blocks: list[ResidualAttentionBlock], packed: Tensor, layout: Layout) -> Tensor:
    """Raw hidden states [P + T, w] of all rows.

    Args:
        blocks: the layers of a causal tower.
        packed: [P + T, w] token embeddings with positions.
        layout: where the sequences lie.

    """
    for block in blocks:
        packed = rest_of_layer(block, packed, _attended(block, packed, layout))
    return packed


def _attended(block: ResidualAttentionBlock, packed: Tensor, layout: Layout) -> Tensor:
    """Attention's weighted values [P + T, w]."""
    heads = block.attn.num_heads
    sizes = [layout.prefix, *(sequences * length for sequences, length in layout.groups)]
    of_prefix, *of_groups = joint_projections(block, packed).split(sizes)
    query, p_key, p_value = (part.squeeze(1) for part in _heads(of_prefix, 1, heads))
    on_prefix = F.scaled_dot_product_attention(
        query[None], p_key[None], p_value[None], is_causal=True
    )
    parts = [on_prefix[0].transpose(0, 1).flatten(1)]
    for (sequences, _), rows in zip(layout.groups, of_groups, strict=True):
        own = _heads(rows, sequences, heads)
        parts.append(_attend_after_prefix(own, p_key, p_value))
    return torch.cat(parts)


def _heads(joint: Tensor, sequences: int, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [heads, C, L, w / heads] of joint projections [C L, 3 w]."""
    # not -1: there may be no rows at all
    split = joint.unflatten(0, (sequences, joint.shape[0] // sequences))
    query, key, value = split.unflatten(-1, (3, heads, -1)).permute(2, 3, 0, 1, 4).contiguous()
    return query, key, value


def _attend_after_prefix(
    own: tuple[Tensor, Tensor, Tensor], p_key: Tensor, p_value: Tensor
) -> Tensor:
    """Weighted values [C L, w] over the prefix and a token's own sequence up to it.

    Its own queries, keys and values are [heads, C, L, w / heads], the prefix's [heads, P,
    w / heads]: nothing of the prefix is copied per sequence.
    """
    query, key, value = own
    length = key.shape[-2]
    if p_key.shape[-2] == 1:
        # a matrix product of one column is rounded by how many rows, so sequences, it has
        over_prefix = (query * p_key[:, None]).sum(dim=-1, keepdim=True)
    else:
        rows = query.flatten(1, 2) @ p_key.mT
        over_prefix = rows.unflatten(1, query.shape[1:3])
    future = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
    over_own = (query @ key.mT).masked_fill(future, float("-inf"))
    scores = torch.cat([over_prefix, over_own], dim=-1)
    weights = (scores * query.shape[-1] ** -0.5).softmax(dim=-1)
    on_prefix, on_own = weights.split([p_key.shape[-2], length], dim=-1)
    gathered = (on_prefix.flatten(1, 2) @ p_value).unflatten(1, over_own.shape[1:3])
    weighted: Tensor = gathered + on_own @ value
    return weighted.permute(1, 2, 0, 3).flatten(2).flatten(0, 1)
