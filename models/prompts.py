"""Learnable prompts: context tokens around each class name, encoded by the frozen text tower.

What stands first in every prompt (SOS, and the contexts that are shared and precede the name) goes
through the causal tower once for a block of prompts, which follow it end to end; only the rest is
computed per class, and of the last layer only what stands at EOT. All of it is exact.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

from models.backbone import Backbone
from models.choices import Position
from models.layers import attended, rest_of_layer

CONTEXT_STD = 0.02
BLOCK: Final = 128
"""Rows of prompts, about, that attend as one product."""


class PromptLearner(nn.Module):
    """Sets of prompts [SOS, v1 … vM, class name, ".", EOT] (CoOp, IJCV 2022; TaI-DPT has two sets).

    Args:
        backbone: the frozen CLIP; not a submodule, so the state holds `context` alone.
        names: C class names as they stand in prompts.
        contexts: M, context tokens per prompt.
        sets: S, prompt sets (global and local).
        class_specific: contexts of each class's own, not shared.
        position: where the name stands: after, amid or before the contexts.
        words: what the contexts are at first, for example "a photo of a"; M is then their number
            of tokens.
        generator: source of the initial contexts, N(0, 0.02²), where there are no words.

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
        words: str = "",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        # a tuple hides the backbone from Module's registration
        self._backbone = (backbone,)
        start = _embedded(backbone, words) if words else None
        contexts = contexts if start is None else len(start)
        tokens = backbone.tokenize([f"{name.replace('_', ' ')}." for name in names])
        lengths = backbone.lengths(tokens).tolist()
        for name, length in zip(names, lengths, strict=True):
            if contexts + length > backbone.context_length:
                raise ValueError(
                    f"class {name!r}: its prompt takes {contexts + length} tokens, more than the "
                    f"text tower's {backbone.context_length}; shorten it or use fewer contexts"
                )
        shape = (sets, len(names), contexts) if class_specific else (sets, contexts)
        if start is None:
            start = torch.randn(*shape, backbone.width, generator=generator) * CONTEXT_STD
        self.context = nn.Parameter(start.expand(*shape, -1).clone().to(backbone.device))

        used, places = tokens.unique(return_inverse=True)
        self._constants = backbone.embed(used.to(backbone.device)).detach()
        self._prompts = []
        for number, (place, length) in enumerate(zip(places.tolist(), lengths, strict=True)):
            first = len(used) + (number * contexts if class_specific else 0)
            context = range(first, first + contexts)
            self._prompts.append(_prompt(place[:length], backbone.starts, context, position))
        self._all = self._rows(range(len(names)))

    @property
    def backbone(self) -> Backbone:
        """The frozen CLIP."""
        return self._backbone[0]

    def forward(self) -> Tensor:
        """[S, C, d] projected hidden state at EOT, not normalised, differentiable in `context`."""
        return self.encode(self.context)

    def encode(self, context: Tensor, classes: Sequence[int] | None = None) -> Tensor:
        """As `forward` with any contexts, shaped as `context` but for S; of some classes alone."""
        rows = self._all if classes is None else self._rows(classes)
        return encode_rows(self.backbone, self._constants, context, rows)

    def tables(self) -> tuple[Tensor, list[list[int]]]:
        """[T, w] embeddings of the prompts' own tokens; each class's prompt as rows of a table.

        The table is those T, then the contexts.
        """
        return self._constants, self._prompts

    def _rows(self, classes: Sequence[int]) -> "Rows":
        return rows_of([self._prompts[number] for number in classes], self.backbone.device)


@dataclass(frozen=True)
class Rows:
    """Prompts as rows of a table of embeddings, in blocks that begin with what all share."""

    places: Tensor
    """[K, R] rows of the table; any where a block is shorter than the longest."""
    positions: Tensor
    """[K, R]."""
    bias: Tensor
    """[K, 1, R, R] 0 where a row sees another, -inf elsewhere."""
    ends: Tensor
    """[C] of all K R rows, each prompt's last."""


class Tower(Protocol):
    """What prompts need of a text tower."""

    @property
    def blocks(self) -> list[ResidualAttentionBlock]:
        """Its layers."""
        ...

    @property
    def positions(self) -> Tensor:
        """[context_length, w] positional embeddings."""
        ...

    def finish(self, hidden: Tensor) -> Tensor:
        """Last layer norm and projection."""
        ...


def rows_of(prompts: Sequence[list[int]], device: torch.device) -> Rows:
    """Lay prompts out, each given as rows of a table, in blocks of about as many rows each.

    Each prompt keeps at least its last row after the longest prefix that all share.
    """
    prefix = 0
    shortest = min(map(len, prompts))
    while prefix < shortest - 1 and len({prompt[prefix] for prompt in prompts}) == 1:
        prefix += 1
    own = torch.tensor([len(prompt) for prompt in prompts]) - prefix
    before, total = own.cumsum(0) - own, int(own.sum())
    _, block = (before * -(-total // BLOCK) // total).unique_consecutive(return_inverse=True)
    firsts = before[torch.searchsorted(block, torch.arange(int(block[-1]) + 1))]
    begins = prefix + before - firsts[block]
    shape = len(firsts), int((begins + own).max())

    row = torch.arange(total) - (before - begins).repeat_interleave(own)
    at = block.repeat_interleave(own), row
    places, positions = torch.zeros(2, *shape, dtype=torch.long)
    places[:, :prefix] = torch.tensor(prompts[0][:prefix])
    places[at] = torch.tensor([place for prompt in prompts for place in prompt[prefix:]])
    positions[:, :prefix] = torch.arange(prefix)
    positions[at] = torch.arange(total) - before.repeat_interleave(own) + prefix
    # rows that are left over are of no prompt, and see each other and the prefix
    owners = torch.full(shape, -1)
    owners[at] = torch.arange(len(prompts)).repeat_interleave(own)
    sees = (owners[:, :, None] == owners[:, None]) | (torch.arange(shape[1]) < prefix)
    bias = torch.zeros(sees.shape).masked_fill(~sees.tril(), float("-inf"))
    ends = block * shape[1] + begins + own - 1
    return Rows(*(each.to(device) for each in (places, positions, bias[:, None], ends)))


def encode_rows(tower: Tower, constants: Tensor, context: Tensor, rows: Rows) -> Tensor:
    """[S, C, d] of S sets of prompts, whose table is `constants` [T, w] and then S contexts."""
    fixed = constants.expand(len(context), -1, -1)
    table = torch.cat([fixed, context.flatten(1, -2)], dim=1)
    hidden = table[:, rows.places] + tower.positions[rows.positions]
    bias = rows.bias.to(tower.blocks[0].attn.in_proj_weight.dtype)
    *before, last = tower.blocks
    for block in before:
        hidden = rest_of_layer(block, hidden, attended(block, hidden, bias))
    weighted = attended(last, hidden, bias)
    at_end = (part.flatten(1, 2)[:, rows.ends] for part in (hidden, weighted))
    return tower.finish(rest_of_layer(last, *at_end))


def class_embeddings(
    backbone: Backbone, names: Sequence[str], templates: Sequence[Callable[[str], str]]
) -> Tensor:
    """Zero-shot CLIP's classifier [C, d]: normalised mean of the templates' embeddings."""
    means = []
    for name in names:
        tokens = backbone.tokenize([template(name) for template in templates]).to(backbone.device)
        with torch.no_grad():
            found = backbone.encode_sentences(tokens)
            means.append(F.normalize(found, dim=-1).mean(dim=0))
    return F.normalize(torch.stack(means), dim=-1)


def _embedded(backbone: Backbone, words: str) -> Tensor:
    """[M, w] embeddings of a text's own tokens."""
    tokens = backbone.tokenize([words.replace("_", " ")])
    own = tokens[0, backbone.starts : int(backbone.lengths(tokens)) - 1]
    return backbone.embed(own.to(backbone.device)).detach()


def _prompt(tokens: list[int], starts: int, context: range, position: Position) -> list[int]:
    """One prompt as rows of a table, from the rows of [SOS, name, ".", EOT] and of the contexts."""
    start, name, rest = tokens[:starts], tokens[starts:-2], tokens[-2:]
    before = {"end": len(context), "middle": len(context) // 2, "front": 0}[position]
    return [*start, *context[:before], *name, *context[before:], *rest]
