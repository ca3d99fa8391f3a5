"""Captions through the frozen text tower: SOS once for all of them, and no padding."""

import torch
from torch import Tensor

from models.backbone import Backbone
from models.prefix import Layout, encode_whole


def encode_captions(backbone: Backbone, ids: Tensor, lengths: Tensor) -> Tensor:
    """Hidden states [T, w] of captions, after the last layer norm.

    Args:
        backbone: the frozen CLIP.
        ids: [T] token ids of captions end to end, each from SOS to EOT, shortest first.
        lengths: [B] how many each caption has.

    """
    starts = lengths.cumsum(0) - lengths
    place = torch.arange(len(ids), device=ids.device) - starts.repeat_interleave(lengths)
    follows = place > 0
    rows = torch.cat([ids[:1], ids[follows]])
    positions = torch.cat([place[:1], place[follows]])
    packed = backbone.embed(rows) + backbone.positions[positions]
    after, counts = (lengths - 1).unique_consecutive(return_counts=True)
    groups = tuple(zip(counts.tolist(), after.tolist(), strict=True))
    hidden = encode_whole(backbone.blocks, packed[None], Layout(1, groups))[0]
    # each caption's own rows, with the row of SOS before them
    return backbone.text.ln_final(hidden)[follows.cumsum(0) * follows]  # type: ignore[no-any-return]
