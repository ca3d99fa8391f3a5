"""Pictures of images for a page: small copies, and where on them a class's local prompt answers."""

from __future__ import annotations

import base64
import io
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.lazily import lazily
from tasks.images.decode import decode
from tasks.places import Place

with lazily():
    import matplotlib as mpl
    import torch
    from torch.nn import functional as F

SIDE: Final = 192
"""Pixels of a picture's longer side."""
STRONGEST: Final = 0.75
"""Share of the colour over the picture where the answer is strongest."""
Pixels = npt.NDArray[np.float32]


def thumbnail(path: Place, *, square: bool = False, side: int = SIDE) -> str | None:
    """Data URI of a small JPEG, or None if the image cannot be read any more.

    Args:
        path: the image.
        square: cut to the middle square, which is all that CLIP sees.
        side: pixels of the longer side.

    """
    image = _small(path, square=square, side=side)
    return None if image is None else _data_uri(image)


def heat_maps(path: Place, dense: torch.Tensor, prompts: torch.Tensor) -> list[str] | None:
    """Data URIs of the middle square with local prompts' cosines over it (TaI-DPT's Figure 4).

    Args:
        path: the image.
        dense: [N, d] features of its positions, a square grid in rows.
        prompts: [K, d] local prompts, a map each.

    All maps of an image have one scale, from its lowest cosine with any of the prompts (none) to
    its highest (bright): they tell where and, against each other, how strongly.

    """
    image = _small(path, square=True, side=SIDE)
    if image is None:
        return None
    return [_data_uri(_heated(image, grid)) for grid in relative_cosines(dense, prompts)]


def _heated(image: Image.Image, grid: Pixels) -> Image.Image:
    """The picture under a grid's colours, the stronger the less of it is seen."""
    heat = Image.fromarray(grid).resize(image.size, Image.Resampling.BICUBIC)
    strength = np.asarray(heat, dtype=np.float32).clip(0, 1)
    colours: Pixels = mpl.colormaps["inferno"](strength)[..., :3].astype(np.float32)
    alpha = STRONGEST * strength[..., None] + 0.15
    mixed = (1 - alpha) * np.asarray(image, dtype=np.float32) + 255 * alpha * colours
    return Image.fromarray(mixed.round().astype(np.uint8))


def relative_cosines(dense: torch.Tensor, prompts: torch.Tensor) -> Pixels:
    """Cosines [K, H, H] of dense features [H * H, d] with prompts [K, d], stretched to 0 to 1."""
    cosines = F.normalize(prompts.float(), dim=-1) @ F.normalize(dense.float(), dim=-1).T
    side = round(len(dense) ** 0.5)
    span = (cosines.max() - cosines.min()).clamp(min=1e-12)
    grids: Pixels = ((cosines - cosines.min()) / span).view(-1, side, side).numpy()
    return grids


def _small(path: Place, *, square: bool, side: int) -> Image.Image | None:
    small = decode(path, at_least=2 * side)
    if isinstance(small, str):
        return None
    if square:
        edge = min(small.size)
        left, top = (small.width - edge) // 2, (small.height - edge) // 2
        small = small.crop((left, top, left + edge, top + edge))
        return small.resize((side, side), Image.Resampling.BICUBIC)
    small.thumbnail((side, side), Image.Resampling.BICUBIC)
    return small


def _data_uri(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
