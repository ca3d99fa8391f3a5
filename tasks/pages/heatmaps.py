"""Pictures of images for a page: small copies, and where on them a class's local prompt answers."""

import base64
import io
from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional as F

from tasks.images.decode import decode

SIDE: Final = 192
"""Pixels of a picture's longer side."""
STRONGEST: Final = 0.75
"""Share of the colour over the picture where the answer is strongest."""
Pixels = npt.NDArray[np.float32]


def thumbnail(path: Path, *, square: bool = False, side: int = SIDE) -> str | None:
    """Data URI of a small JPEG, or None if the image cannot be read any more.

    Args:
        path: the image.
        square: cut to the middle square, which is all that CLIP sees.
        side: pixels of the longer side.

    """
    image = _small(path, square=square, side=side)
    return None if image is None else _data_uri(image)


def heat_map(path: Path, dense: torch.Tensor, prompt: torch.Tensor) -> str | None:
    """Data URI of the middle square with a local prompt's cosines over it (TaI-DPT's Figure 4).

    Args:
        path: the image.
        dense: [N, d] features of its positions, a square grid in rows.
        prompt: [d] the class's local prompt.

    The colours go from the picture's lowest cosine (none) to its highest (bright): they tell where,
    not how strongly.

    """
    image = _small(path, square=True, side=SIDE)
    if image is None:
        return None
    heat = Image.fromarray(relative_cosines(dense, prompt)).resize(
        image.size, Image.Resampling.BICUBIC
    )
    strength = np.asarray(heat, dtype=np.float32).clip(0, 1)
    colours: Pixels = mpl.colormaps["inferno"](strength)[..., :3].astype(np.float32)
    alpha = STRONGEST * strength[..., None] + 0.15
    mixed = (1 - alpha) * np.asarray(image, dtype=np.float32) + 255 * alpha * colours
    return _data_uri(Image.fromarray(mixed.round().astype(np.uint8)))


def relative_cosines(dense: torch.Tensor, prompt: torch.Tensor) -> Pixels:
    """Cosines [H, H] of dense features [H * H, d] with a prompt [d], stretched to 0 to 1."""
    cosines = F.normalize(dense.float(), dim=-1) @ F.normalize(prompt.float(), dim=-1)
    side = round(len(cosines) ** 0.5)
    span = (cosines.max() - cosines.min()).clamp(min=1e-12)
    grid: Pixels = ((cosines - cosines.min()) / span).view(side, side).numpy()
    return grid


def _small(path: Path, *, square: bool, side: int) -> Image.Image | None:
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
