"""Image features as methods read them: in their set's order, whatever partitions they lie in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from models.lazily import lazily
from tasks.images.stored import Rows
from tasks.workspace import Stage, find_stage

with lazily():
    import torch

    from models.backbone import ImageFeatures

IMAGES: Final = "images.parquet"
"""The images of a set that have features: file, and a SHA-256 of its features (digest)."""
REJECTS: Final = "rejects.parquet"
PARTS: Final = "parts"
"""Figure of an images stage: keys of the partitions that hold its features."""
STAGE: Final = "features"
"""Name of those partitions' stage."""
FEATURES: Final = ("pooled", "pooled_plain", "dense")
"""As in `ImageFeatures`, in its order."""
IMAGES_PER_READ: Final = 128


class StoredFeatures:
    """Features of some images, memory-mapped: what is read is copied, and nothing else.

    Args:
        files: the images, in their set's order.
        rows: their features.

    """

    def __init__(self, files: Sequence[str], rows: Rows) -> None:
        self.files = list(files)
        self._rows = rows

    def __len__(self) -> int:
        return len(self.files)

    def take(self, rows: npt.NDArray[np.int64]) -> ImageFeatures:
        """Features of some rows, as float16."""
        return ImageFeatures(*(self._rows.take(name, rows) for name in FEATURES))

    def batches(self) -> Iterator[ImageFeatures]:
        """All features in order, as float32, some images at a time."""
        every = np.arange(len(self))
        for start in range(0, len(self), IMAGES_PER_READ):
            yield self.take(every[start : start + IMAGES_PER_READ]).to("cpu")

    def pooled(self) -> torch.Tensor:
        """[N, d] float32, CLIP's own global feature of all images."""
        return self._rows.take("pooled", np.arange(len(self))).float()


def open_features(images: Stage) -> StoredFeatures:
    """Features of an images stage."""
    table = pq.read_table(images.file(IMAGES))
    parts = [find_stage(STAGE, key).folder for key in images.figures[PARTS]]
    return StoredFeatures(table["file"].to_pylist(), Rows(parts, table["digest"]))


def files_in(images: Stage) -> list[str]:
    """Files of an images stage that have features, in order."""
    files: list[str] = pq.read_table(images.file(IMAGES), columns=["file"])["file"].to_pylist()
    return files
