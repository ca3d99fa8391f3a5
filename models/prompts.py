"""Learnable prompts: context tokens around each class name, encoded by the frozen text tower.

What stands first in every prompt (SOS, and the contexts that are shared and precede the name) goes
through the tower once per set; only the rest is computed per class (models/prefix.py).
"""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.backbone import Backbone
from models.prefix import Layout, encode_last

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
        tokens = backbone.tokenize([f"{name.replace('_', ' ')}." for name in names])
        lengths = backbone.lengths(tokens).tolist()
        for name, length in zip(names, lengths, strict=True):
            if contexts + length > backbone.context_length:
                raise ValueError(
                    f"class {name!r}: its prompt takes {contexts + length} tokens, more than the "
                    f"text tower's {backbone.context_length}; shorten it or use fewer contexts"
                )
        shape = (sets, len(names), contexts) if class_specific else (sets, contexts)
        noise = torch.randn(*shape, backbone.width, generator=generator) * CONTEXT_STD
        self.context = nn.Parameter(noise.to(backbone.device))

        used, places = tokens.unique(return_inverse=True)
        self._constants = backbone.embed(used.to(backbone.device)).detach()
        prompts = []
        for number, (place, length) in enumerate(zip(places.tolist(), lengths, strict=True)):
            first = len(used) + (number * contexts if class_specific else 0)
            context = range(first, first + contexts)
            prompts.append(_prompt(place[:length], backbone.starts, context, position))
        order = sorted(range(len(names)), key=lambda number: len(prompts[number]))
        packed, positions, self._layout = _pack([prompts[number] for number in order])
        self._packed = torch.tensor(packed, device=backbone.device)
        self._positions = torch.tensor(positions, device=backbone.device)
        self._unsort = torch.tensor(order, device=backbone.device).argsort()

    @property
    def backbone(self) -> Backbone:
        """The frozen CLIP."""
        return self._backbone[0]

    def forward(self) -> Tensor:
        """[S, C, d] projected hidden state at EOT, not normalised, differentiable in `context`."""
        sets, backbone = len(self.context), self.backbone
        constants = self._constants.expand(sets, -1, -1)
        table = torch.cat([constants, self.context.flatten(1, -2)], dim=1)
        packed = table[:, self._packed] + backbone.positions[self._positions]
        with backbone.computing():
            at_end = encode_last(backbone.blocks, packed, self._layout)
        return backbone.finish(at_end)[:, self._unsort]


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
