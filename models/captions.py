"""Captions through the frozen text tower: SOS once for all of them, and no padding.

On a CPU a caption's features have the same bits whichever captions go along with it: MKL rounds a
row of a matrix product in another way only where a thread has fewer than four, so there are never
fewer than FEWEST_ROWS (enough for 64 threads). In bfloat16 the last bit may differ.
"""

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from models.backbone import Backbone
from models.prefix import Layout, encode_packed

FEWEST_ROWS: Final = 256


def encode_captions(backbone: Backbone, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden states [T, w] of captions, after the last layer norm, and their projections [T, d].

    Args:
        backbone: the frozen CLIP.
        ids: [T] token ids of captions end to end, each from its first to EOT, shortest first.
        lengths: [B] how many each caption has.

    """
    firsts = lengths.cumsum(0) - lengths
    place = torch.arange(len(ids), device=ids.device) - firsts.repeat_interleave(lengths)
    starts = backbone.starts
    follows = place >= starts
    rows = torch.cat([ids[:starts], ids[follows]])
    positions = torch.cat([place[:starts], place[follows]])
    packed = backbone.embed(rows) + backbone.positions[positions]
    after, counts = (lengths - starts).unique_consecutive(return_counts=True)
    groups = list(zip(counts.tolist(), after.tolist(), strict=True))
    spare = FEWEST_ROWS - len(packed)
    if spare > 0:
        packed = F.pad(packed, (0, 0, 0, spare))
        groups.append((spare, 1))
    hidden = encode_packed(backbone.blocks, packed, Layout(starts, tuple(groups)))
    hidden = backbone.text.ln_final(hidden)
    # each caption's own rows, with the row of SOS before them
    own = (follows.cumsum(0) - 1 + starts) * follows
    return hidden[own], backbone.project(hidden)[own]
