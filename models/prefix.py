"""The frozen text tower over sequences that share a prefix, without any work that cannot matter.

The tower is causal, so the tokens that stand first in every sequence have the same hidden states in
all of them: they go through the tower once. The rest of each sequence follows, packed end to end
and grouped by length, so that there is no padding. Where only each sequence's last token is wanted,
the last layer computes no other. All of it is exact, and differentiable in the embeddings.
"""

from dataclasses import dataclass
from typing import Any

import torch
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Layout:
    """Where sequences lie in packed rows: the prefix, then groups of sequences of one length."""

    prefix: int
    """P, rows of the shared prefix; there may be none."""
    groups: tuple[tuple[int, int], ...]
    """(sequences, length after the prefix) of each group, in the order of their rows."""

    @property
    def ends(self) -> list[int]:
        """[C] row of each sequence's last token, in packed order."""
        found: list[int] = []
        row = self.prefix
        for sequences, length in self.groups:
            found += range(row + length - 1, row + sequences * length, length)
            row += sequences * length
        return found


def encode_whole(blocks: list[ResidualAttentionBlock], packed: Tensor, layout: Layout) -> Tensor:
    """Raw hidden states of all rows, in the shape of `packed`; see `encode_last`."""
    for block in blocks:
        packed = _rest_of_layer(block, packed, _attended(block, packed, layout))
    return packed


def encode_last(blocks: list[ResidualAttentionBlock], packed: Tensor, layout: Layout) -> Tensor:
    """Raw hidden states [S, C, w] of the sequences' last tokens, in packed order.

    Args:
        blocks: the layers of a causal tower.
        packed: [S, P + T, w] token embeddings with positions: S sets of one layout.
        layout: where the sequences lie.

    """
    *before, last = blocks
    packed = encode_whole(before, packed, layout)
    ends = torch.tensor(layout.ends, device=packed.device)
    # of the prefix, only keys and values are still needed
    attended = _attended(last, packed, layout, only_ends=True)
    return _rest_of_layer(last, packed[:, ends], attended)


def _attended(
    block: ResidualAttentionBlock, packed: Tensor, layout: Layout, *, only_ends: bool = False
) -> Tensor:
    """Attention's weighted values [S, P + T, w], or [S, C, w] of the sequences' last tokens."""
    attention = block.attn
    joint = F.linear(block.ln_1(packed), attention.in_proj_weight, attention.in_proj_bias)
    sizes = [layout.prefix, *(sequences * length for sequences, length in layout.groups)]
    of_prefix, *of_groups = joint.split(sizes, dim=1)
    p_query, p_key, p_value = (
        part.squeeze(2) for part in _heads(of_prefix, 1, attention.num_heads)
    )
    parts = []
    if not only_ends:
        on_prefix = F.scaled_dot_product_attention(p_query, p_key, p_value, is_causal=True)
        parts.append(on_prefix.transpose(1, 2).flatten(2))
    for (sequences, _), rows in zip(layout.groups, of_groups, strict=True):
        query, key, value = _heads(rows, sequences, attention.num_heads)
        query = query[..., -1:, :] if only_ends else query
        parts.append(_attend_after_prefix(query, key, value, p_key, p_value))
    return torch.cat(parts, dim=1)


def _heads(joint: Tensor, sequences: int, heads: int) -> tuple[Tensor, ...]:
    """Queries, keys and values [S, heads, C, L, w / heads] of joint projections [S, C L, 3 w]."""
    # not -1: there may be no rows at all
    split = joint.unflatten(1, (sequences, joint.shape[1] // sequences)).unflatten(
        -1, (3, heads, -1)
    )
    query, key, value = split.permute(3, 0, 4, 1, 2, 5).contiguous()
    return query, key, value


def _attend_after_prefix(
    query: Tensor, key: Tensor, value: Tensor, p_key: Tensor, p_value: Tensor
) -> Tensor:
    """Weighted values [S, C Q, w] of the last Q of L tokens, over the prefix and their sequence.

    Queries are [S, heads, C, Q, w / heads], keys and values [S, heads, C, L, w / heads], those of
    the prefix [S, heads, P, w / heads]: nothing of the prefix is copied per sequence.
    """
    queries, length = query.shape[-2], key.shape[-2]
    if p_key.shape[-2] == 1:
        # a matrix product of one column is rounded by how many rows, so sequences, it has
        over_prefix = (query * p_key[:, :, None]).sum(dim=-1, keepdim=True)
    else:
        rows = query.flatten(2, 3) @ p_key.transpose(-1, -2)
        over_prefix = rows.unflatten(2, query.shape[2:4])
    future = torch.ones(queries, length, dtype=torch.bool, device=query.device)
    over_own = (query @ key.transpose(-1, -2)).masked_fill(
        future.triu(1 + length - queries), float("-inf")
    )
    scores = torch.cat([over_prefix, over_own], dim=-1)
    weights = (scores * query.shape[-1] ** -0.5).softmax(dim=-1)
    on_prefix, on_own = weights.split([p_key.shape[-2], length], dim=-1)
    gathered = (on_prefix.flatten(2, 3) @ p_value).unflatten(2, over_own.shape[2:4])
    attended: Tensor = gathered + on_own @ value
    return attended.permute(0, 2, 3, 1, 4).flatten(3).flatten(1, 2)


def _rest_of_layer(block: ResidualAttentionBlock, hidden: Tensor, attended: Tensor) -> Tensor:
    """The rest of a layer on hidden states [S, T, w], from attention's weighted values."""
    hidden = hidden + block.ls_1(block.attn.out_proj(attended))
    updated: Tensor = hidden + block.ls_2(_mlp(block.mlp, block.ln_2(hidden)))
    return updated


def _mlp(mlp: Any, hidden: Tensor) -> Tensor:
    """`mlp(hidden)`; QuickGELU as a scaled SiLU: one pass each way, one tensor kept."""
    if not isinstance(mlp.gelu, QuickGELU):
        output: Tensor = mlp(hidden)
        return output
    # x sigmoid(a x) = silu(a x) / a; both factors ride on the matrix products
    factor = 1.702
    rows = hidden.flatten(0, -2)
    inner = torch.addmm(mlp.c_fc.bias, rows, mlp.c_fc.weight.T, beta=factor, alpha=factor)
    outer = F.linear(F.silu(inner), mlp.c_proj.weight)
    return torch.add(mlp.c_proj.bias, outer, alpha=1 / factor).view(hidden.shape)
