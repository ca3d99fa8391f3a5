"""Learnable prompts: context tokens around each class name, encoded by the frozen text tower.

What stands first in every prompt (SOS, and the contexts that are shared and precede the name) goes
through the tower once per set; only the rest is computed per class (models/prefix.py).
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

from models.backbone import Backbone
from models.choices import Position
from models.prefix import Layout, encode_last

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
    """Prompts as rows of a table of embeddings, packed."""

    packed: Tensor
    positions: Tensor
    layout: Layout
    unsort: Tensor
    """Place of each prompt among the packed ones."""


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

    def computing(self) -> AbstractContextManager[Any]:
        """The context in which its layers compute as they should."""
        ...

    def finish(self, hidden: Tensor) -> Tensor:
        """Last layer norm and projection."""
        ...


def rows_of(prompts: Sequence[list[int]], device: torch.device) -> Rows:
    """Pack prompts, each given as rows of a table."""
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    packed, positions, layout = _pack([prompts[number] for number in order])
    return Rows(
        torch.tensor(packed, device=device),
        torch.tensor(positions, device=device),
        layout,
        torch.tensor(order, device=device).argsort(),
    )


def encode_rows(tower: Tower, constants: Tensor, context: Tensor, rows: Rows) -> Tensor:
    """[S, C, d] of S sets of prompts, whose table is `constants` [T, w] and then S contexts."""
    fixed = constants.expand(len(context), -1, -1)
    table = torch.cat([fixed, context.flatten(1, -2)], dim=1)
    packed = table[:, rows.packed] + tower.positions[rows.positions]
    with tower.computing():
        at_end = encode_last(tower.blocks, packed, rows.layout)
    return tower.finish(at_end)[:, rows.unsort]


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


def _pack(prompts: list[list[int]]) -> tuple[list[int], list[int], Layout]:
    """Rows and positions of prompts, shortest first, after the longest prefix that all share.

    Each prompt keeps at least its last row after the prefix.
    """
    prefix = 0
    while prefix < len(prompts[0]) - 1 and len({prompt[prefix] for prompt in prompts}) == 1:
        prefix += 1
    packed, positions = prompts[0][:prefix], list(range(prefix))
    for prompt in prompts:
        packed += prompt[prefix:]
        positions += range(prefix, len(prompt))
    lengths = groupby(len(prompt) - prefix for prompt in prompts)
    groups = tuple((len(list(of_length)), length) for length, of_length in lengths)
    return packed, positions, Layout(prefix, groups)
