"""What methods learn from: encoded captions or labelled images, read by batch."""

from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from models.backbone import ImageFeatures
from models.scoring import PackedTokens


@dataclass(frozen=True)
class CaptionBatch:
    """Frozen features and labels of B captions."""

    global_: Tensor
    """[B, d] L2-normalised."""
    tokens: PackedTokens
    labels: Tensor
    """[B, C] booleans."""


@dataclass(frozen=True)
class PhraseBatch:
    """Frozen features of the phrases of B captions, T in all, end to end, and labels."""

    features: Tensor
    """[T, d] L2-normalised, each phrase encoded alone."""
    offsets: Tensor
    """[B + 1] int64: caption i's phrases are rows offsets[i] to offsets[i + 1]; each has one."""
    named: Tensor
    """[K] int64, rows of phrases that name a class,"""
    named_classes: Tensor
    """[K] and which; a phrase that names several stands here several times."""
    labels: Tensor
    """[B, C] booleans."""


@dataclass(frozen=True)
class SentenceBatch:
    """One frozen vector for each of B captions, and labels."""

    features: Tensor
    """[B, d] L2-normalised."""
    labels: Tensor
    """[B, C] booleans."""


@dataclass(frozen=True)
class ImageBatch:
    """Frozen features and labels of B images."""

    features: ImageFeatures
    labels: Tensor
    """[B, C] int8: 1 shown, 0 not shown, -1 unknown."""


BatchT_co = TypeVar("BatchT_co", covariant=True)


class Examples(Protocol[BatchT_co]):
    """Encoded captions or images with labels, read by batch."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def batch(self, rows: Tensor, device: torch.device) -> BatchT_co:
        """Features and labels of the examples `rows` [B], in that order."""
        ...


class Images(Examples[ImageBatch], Protocol):
    """Images with labels, and random crops of each."""

    @property
    def views(self) -> int:
        """How many random crops of each image there are."""
        ...

    def view(self, number: int, rows: Tensor, device: torch.device) -> ImageFeatures:
        """Features of the `number`-th crop of the images `rows` [B], in that order."""
        ...


Captions = Examples[CaptionBatch]
