"""Maps from captions' vectors to images', where pictures with captions of their own exist (CLOSE).

Both are maximum-likelihood answers from first and second moments of pairs, so any number of pairs
takes the memory of one matrix.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

LEAST = 1e-10
"""Directions with less than this share of the captions' greatest variance tell nothing."""


@dataclass(frozen=True)
class Pairs:
    """Moments of pairs of a caption's and its image's vector, both of unit length; float64."""

    count: Tensor
    """[] number of pairs,"""
    texts: Tensor
    """[d] mean of the captions,"""
    images: Tensor
    """[d] mean of the images,"""
    within: Tensor
    """[d, d] covariance of the captions,"""
    across: Tensor
    """[d, d] and of captions (rows) with images."""


def pairs_of(batches: Iterable[tuple[Tensor, Tensor]]) -> Pairs:
    """Moments of batches of captions' and images' vectors, each [B, d].

    Raises:
        ValueError: there is no pair.

    """
    count, sums = 0, [torch.zeros((), dtype=torch.float64)] * 4
    for batch in batches:
        texts, images = (F.normalize(each.double(), dim=-1) for each in batch)
        found = texts.sum(dim=0), images.sum(dim=0), texts.T @ texts, texts.T @ images
        sums = [before + new for before, new in zip(sums, found, strict=True)]
        count += len(texts)
    if not count:
        raise ValueError("no pair of a caption and an image")
    mean_text, mean_image, within, across = (each / count for each in sums)
    return Pairs(
        torch.tensor(count),
        mean_text,
        mean_image,
        within - mean_text.outer(mean_text),
        across - mean_text.outer(mean_image),
    )


def mean_shift(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Weight [d, d] and bias [d] that move captions' mean to the images': t + mean(f) - mean(t)."""
    return torch.eye(len(pairs.texts), dtype=torch.float64), pairs.images - pairs.texts


def linear_map(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Weight [d, d] and bias [d] of least squares, image on caption: f = W t + b.

    Of fewer pairs than dimensions it is the answer of least norm.
    """
    weight = (torch.linalg.pinv(pairs.within, rtol=LEAST, hermitian=True) @ pairs.across).T
    return weight, pairs.images - weight @ pairs.texts


def adapted(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Unit vectors [..., d] of features [..., d] after a map."""
    return F.normalize(features @ weight.T + bias, dim=-1)
