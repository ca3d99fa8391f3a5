"""Learnable prompts: context tokens around each class name, encoded by the frozen text tower.

With shared contexts and the class name at the end, SOS and the contexts have the same hidden states
for every class (the tower is causal): they are computed once per set, and each class's few suffix
tokens attend to them. Everything else takes the general road. Nothing after EOT is computed.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

from models.backbone import Backbone

Position = Literal["end", "middle", "front"]
CONTEXT_STD = 0.02


class PromptLearner(nn.Module):
    """Sets of prompts [SOS, v1 … vM, class name, ".", EOT] (CoOp, IJCV 2022; TaI-DPT has two sets).

    Args:
        backbone: the frozen CLIP; not a submodule, so the state holds `context` alone.
        names: C class names as they stand in prompts.
        contexts: M, context tokens per prompt.
        sets: S, prompt sets (global and local).
        class_specific: contexts of each class's own, not shared.
        position: where the name stands: after, amid or before the contexts.
        generator: source of the initial contexts, N(0, 0.02²).

    Raises:
        ValueError: a prompt does not fit the tower's context length.

    """

    def __init__(
        self,
        backbone: Backbone,
        names: Sequence[str],
        *,
        contexts: int = 16,
        sets: int = 2,
        class_specific: bool = False,
        position: Position = "end",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        # a tuple hides the backbone from Module's registration
        self._backbone = (backbone,)
        self._shares_prefix = position == "end" and not class_specific
        tokens = backbone.tokenize([f"{name.replace('_', ' ')}." for name in names])
        lengths = backbone.lengths(tokens)
        for name, length in zip(names, lengths.tolist(), strict=True):
            if contexts + length > backbone.context_length:
                raise ValueError(
                    f"class {name!r}: its prompt takes {contexts + length} tokens, more than the "
                    f"text tower's {backbone.context_length}; shorten it or use fewer contexts"
                )
        suffix = tokens[:, 1 : int(lengths.max())].to(backbone.device)
        self._last = (lengths - 2).to(backbone.device)
        with torch.no_grad():
            self._start = backbone.embed(tokens[0, :1].to(backbone.device))
            self._suffix = backbone.embed(suffix)
        self._order = _order(lengths - 1, contexts, position).to(backbone.device)
        shape = (sets, len(names), contexts) if class_specific else (sets, contexts)
        noise = torch.randn(*shape, backbone.width, generator=generator) * CONTEXT_STD
        self.context = nn.Parameter(noise.to(backbone.device))

    @property
    def backbone(self) -> Backbone:
        """The frozen CLIP."""
        return self._backbone[0]

    def forward(self) -> Tensor:
        """[S, C, d] projected hidden state at EOT, not normalised, differentiable in `context`."""
        return self._from_shared_prefix() if self._shares_prefix else self._from_whole_prompts()

    def _from_whole_prompts(self) -> Tensor:
        """The general road: every prompt whole, up to the longest EOT."""
        sets, classes = self.context.shape[0], len(self._suffix)
        context = self.context if self.context.dim() == 4 else self.context[:, None]
        context = context.expand(sets, classes, -1, -1)
        parts = torch.cat(
            [
                self._start.expand(sets, classes, -1, -1),
                context,
                self._suffix.expand(sets, -1, -1, -1),
            ],
            dim=2,
        )
        order = self._order.expand(sets, -1, -1)[..., None].expand(-1, -1, -1, parts.shape[-1])
        hidden = self.backbone.encode_embeddings(parts.gather(2, order).flatten(0, 1))
        ends = (self._last + 1 + context.shape[2]).repeat(sets)
        at_end = hidden[torch.arange(len(hidden), device=hidden.device), ends]
        return self.backbone.project(at_end).view(sets, classes, -1)

    def _from_shared_prefix(self) -> Tensor:
        """SOS and contexts once per set; the suffixes of all classes attend to them."""
        sets, contexts, _ = self.context.shape
        classes, length, _ = self._suffix.shape
        prefix = torch.cat([self._start.expand(sets, -1, -1), self.context], dim=1)
        prefix = prefix + self.backbone.positions(0, contexts + 1)
        positions = self.backbone.positions(contexts + 1, contexts + 1 + length)
        suffix = (self._suffix + positions).expand(sets, classes, length, -1)
        for block in self.backbone.blocks:
            prefix, suffix = _block_with_prefix(block, prefix, suffix)
        at_end = suffix[:, torch.arange(classes, device=suffix.device), self._last]
        return self.backbone.finish(at_end)


def class_embeddings(
    backbone: Backbone, names: Sequence[str], templates: Sequence[Callable[[str], str]]
) -> Tensor:
    """Zero-shot CLIP's classifier [C, d]: normalised mean of the templates' embeddings."""
    means = []
    for name in names:
        tokens = backbone.tokenize([template(name) for template in templates]).to(backbone.device)
        lengths = backbone.lengths(tokens)
        with torch.no_grad():
            hidden = backbone.encode_text(tokens[:, : int(lengths.max())])
            at_end = hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]
            means.append(F.normalize(backbone.project(at_end), dim=-1).mean(dim=0))
    return F.normalize(torch.stack(means), dim=-1)


def _order(suffix_lengths: Tensor, contexts: int, position: Position) -> Tensor:
    """[C, L] which of [SOS, contexts, name, ".", EOT, padding] stands at each place."""
    rows = []
    longest = int(suffix_lengths.max())
    context = list(range(1, 1 + contexts))
    before = {"end": contexts, "middle": contexts // 2, "front": 0}[position]
    for length in suffix_lengths.tolist():
        suffix = list(range(1 + contexts, 1 + contexts + longest))
        # the last two of a suffix are "." and EOT
        name, rest = suffix[: length - 2], suffix[length - 2 :]
        rows.append([0, *context[:before], *name, *context[before:], *rest])
    return torch.tensor(rows)


def _block_with_prefix(
    block: ResidualAttentionBlock, prefix: Tensor, suffix: Tensor
) -> tuple[Tensor, Tensor]:
    """One layer on prefixes [S, P, w] and suffixes [S, C, L, w] whose tokens follow the prefix."""
    heads = block.attn.num_heads
    p_query, p_key, p_value = _projected(block, prefix, heads)
    query, key, value = _projected(block, suffix, heads)

    attended = F.scaled_dot_product_attention(p_query, p_key, p_value, is_causal=True)
    prefix = _residual(block, prefix, attended.transpose(-3, -2).flatten(-2))

    _, classes, _, length, size = query.shape
    # scores over the prefix are one matrix product for all classes: nothing is copied per class
    flat = query.transpose(1, 2).flatten(2, 3)
    over_prefix = (flat @ p_key.transpose(-1, -2)).unflatten(2, (classes, length)).transpose(1, 2)
    future = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
    over_suffix = (query @ key.transpose(-1, -2)).masked_fill(future, float("-inf"))
    scores = torch.cat([over_prefix, over_suffix], dim=-1) * size**-0.5
    weights = scores.softmax(dim=-1)
    on_prefix, on_suffix = weights.split([p_key.shape[-2], length], dim=-1)
    gathered = on_prefix.transpose(1, 2).flatten(2, 3) @ p_value
    attended = gathered.unflatten(2, (classes, length)).transpose(1, 2) + on_suffix @ value
    suffix = _residual(block, suffix, attended.transpose(-3, -2).flatten(-2))
    return prefix, suffix


def _projected(block: ResidualAttentionBlock, hidden: Tensor, heads: int) -> tuple[Tensor, ...]:
    """Queries, keys and values [..., heads, L, w / heads] of hidden states [..., L, w]."""
    attention = block.attn
    joint = F.linear(block.ln_1(hidden), attention.in_proj_weight, attention.in_proj_bias)
    return tuple(
        part.unflatten(-1, (heads, part.shape[-1] // heads)).transpose(-3, -2)
        for part in joint.chunk(3, dim=-1)
    )


def _residual(block: ResidualAttentionBlock, hidden: Tensor, attended: Tensor) -> Tensor:
    """The rest of a layer, once attention's weighted values [..., L, w] are known."""
    hidden = hidden + block.ls_1(block.attn.out_proj(attended))
    updated: Tensor = hidden + block.ls_2(block.mlp(block.ln_2(hidden)))
    return updated
