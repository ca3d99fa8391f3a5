"""Labels of images as matrices, and labelled images as methods learn from them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.lazily import lazily
from tasks.images.encode import FEATURES, IMAGES, feature_shards

with lazily():
    import torch

    from models.backbone import ImageFeatures
    from models.examples import ImageBatch


def label_matrix(listed: pa.Table, classes: Sequence[str]) -> torch.Tensor:
    """[N, C] int8 of a table with `classes` and `ignored`: 1 shown, 0 not shown, -1 not known.

    Names that are no class are left out; where `classes` is null, nothing is known of the image.
    """
    labels = torch.zeros(listed.num_rows, len(classes), dtype=torch.int8)
    for mark, column in ((-1, "ignored"), (1, "classes")):
        lists = listed[column].combine_chunks()
        columns = pc.index_in(lists.flatten(), value_set=pa.array(classes, pa.string()))
        is_class = pc.is_valid(columns)
        rows = lists.value_parent_indices().filter(is_class).to_numpy()
        labels.numpy()[rows, columns.filter(is_class).to_numpy()] = mark
    labels[torch.from_numpy(listed["classes"].is_null().to_numpy())] = -1
    return labels


class LabelledImages:
    """Stored features and labels of an image set, memory-mapped: a batch copies its own rows.

    Args:
        entries: the image-set stage's file, or some of its images, as the draw stage leaves them.
        features: the images stage's folder; an image that could not be read is left out.
        classes: labels are columns in their order.

    """

    def __init__(self, entries: Path, features: Path, classes: Sequence[str]) -> None:
        listed = pq.read_table(entries)
        read = {file: row for row, file in enumerate(listed["file"].to_pylist())}
        files = pq.read_table(features / IMAGES)["file"].to_pylist()
        stored = [row for row, file in enumerate(files) if file in read]
        self._stored = np.array(stored, dtype=np.int64)
        self.labels = label_matrix(listed, classes)[[read[files[row]] for row in stored]]
        self._shards = list(feature_shards(features))
        sizes = [0, *(len(shard[FEATURES[0]]) for shard in self._shards)]
        self._starts = np.cumsum(sizes)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: torch.Tensor, device: torch.device) -> ImageBatch:
        """See `models.examples.Examples.batch`."""
        features = ImageFeatures(
            *(self._rows(name, self._stored[rows.numpy()]) for name in FEATURES)
        )
        return ImageBatch(features.to(device), self.labels[rows].to(device))

    def _rows(self, name: str, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        first = self._shards[0][name]
        found: npt.NDArray[Any] = np.empty((len(rows), *first.shape[1:]), first.dtype)
        for shard, (start, stop) in zip(self._shards, pairwise(self._starts), strict=True):
            is_here = (rows >= start) & (rows < stop)
            found[is_here] = shard[name][rows[is_here] - start]
        return torch.from_numpy(found)
