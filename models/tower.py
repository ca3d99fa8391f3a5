"""A frozen text tower as named tensors, for methods that encode prompts when they score."""

from collections.abc import Mapping
from typing import Final

import torch
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn

from models.backbone import Backbone

PREFIX: Final = "tower."
BLOCK: Final = "block"


def tower_state(backbone: Backbone) -> dict[str, Tensor]:
    """The text tower's layers, positions, last norm and projection, float32 on the CPU."""
    blocks = backbone.blocks
    norm = backbone.text.ln_final
    found: dict[str, Tensor] = {
        f"{BLOCK}{number}.{name}": value
        for number, block in enumerate(blocks)
        for name, value in block.state_dict().items()
    }
    found |= {"positions": backbone.positions, "norm.weight": norm.weight, "norm.bias": norm.bias}
    if backbone.projection is not None:
        found["projection"] = backbone.projection
    kept = {name: value.detach().float().cpu() for name, value in found.items()}
    # what the layers are besides their weights
    is_quick = isinstance(blocks[0].mlp.gelu, QuickGELU)
    kept["heads"] = torch.tensor(blocks[0].attn.num_heads)
    kept["quick"] = torch.tensor(int(is_quick))
    kept["epsilon"] = torch.tensor(norm.eps)
    return {f"{PREFIX}{name}": value.clone() for name, value in kept.items()}


class StoredTower:
    """The text tower of a state, as `models.prompts.Tower`; nothing is copied."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        own = {
            name.removeprefix(PREFIX): value
            for name, value in state.items()
            if name.startswith(PREFIX)
        }
        self.positions = own["positions"]
        self._norm = (own["norm.weight"], own["norm.bias"])
        self._projection = own.get("projection")
        self._epsilon = float(own["epsilon"])
        layers: dict[int, dict[str, Tensor]] = {}
        for name, value in own.items():
            place, _, rest = name.partition(".")
            if place.startswith(BLOCK) and rest:
                layers.setdefault(int(place.removeprefix(BLOCK)), {})[rest] = value
        heads, is_quick = int(own["heads"]), bool(own["quick"])
        self.blocks = [
            _block(layers[number], heads, self._epsilon, is_quick=is_quick)
            for number in sorted(layers)
        ]

    def finish(self, hidden: Tensor) -> Tensor:
        """Last layer norm and projection of raw hidden states: [..., w] -> [..., d]."""
        normed = nn.functional.layer_norm(hidden, self._norm[0].shape, *self._norm, self._epsilon)
        return normed if self._projection is None else normed @ self._projection


def _block(
    weights: Mapping[str, Tensor], heads: int, epsilon: float, *, is_quick: bool
) -> ResidualAttentionBlock:
    inner, width = weights["mlp.c_fc.weight"].shape
    with torch.device("meta"):
        block = ResidualAttentionBlock(
            width,
            heads,
            mlp_ratio=inner / width,
            ls_init_value=1.0 if "ls_1.gamma" in weights else None,
            act_layer=QuickGELU if is_quick else nn.GELU,
            norm_layer=lambda size: nn.LayerNorm(size, eps=epsilon),
        )
    block.load_state_dict(dict(weights), assign=True)
    return block.eval().requires_grad_(requires_grad=False)
