"""Noise on text features: images lie apart from texts, and a head must not look at that gap."""

import math

import torch
from torch import Tensor


def noise_std(cosine: float, dim: int) -> float:
    """Standard deviation s of each dimension's noise that leaves a unit vector at this cosine.

    The squared length of the noise is about s² d, and it is about orthogonal to the vector: its
    cosine with the noisy one is 1 / sqrt(1 + s² d). CLOSE's 0.04 to 0.12 at d = 768 are cosines
    of 0.67 to 0.29, CoMC's 0.1 at d = 1024 is 0.30. Said by angle it means the same in any space.
    """
    return math.sqrt((cosine**-2 - 1) / dim)


def noisy(features: Tensor, cosine: float, generator: torch.Generator) -> Tensor:
    """Unit vectors [B, d] with normal noise that leaves them at this cosine; not normalised."""
    if cosine >= 1:
        return features
    drawn = torch.randn(features.shape, generator=generator)
    return features + noise_std(cosine, features.shape[-1]) * drawn.to(features.device)
