"""Labels of images as matrices, and labelled images as methods learn from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.lazily import lazily
from tasks.images.features import StoredFeatures

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
        features: of the image set; an image that could not be read is left out.
        classes: labels are columns in their order.
        crops: features of random crops of all those images, a view of each.

    """

    def __init__(
        self,
        entries: Path,
        features: StoredFeatures,
        classes: Sequence[str],
        crops: Sequence[StoredFeatures] = (),
    ) -> None:
        listed = pq.read_table(entries)
        read = {file: row for row, file in enumerate(listed["file"].to_pylist())}
        stored = [row for row, file in enumerate(features.files) if file in read]
        self._stored = np.array(stored, dtype=np.int64)
        self._features = features
        rows = [read[features.files[row]] for row in stored]
        self.labels = label_matrix(listed, classes)[rows]
        self._crops = []
        for each in crops:
            place = {file: row for row, file in enumerate(each.files)}
            found = [place[features.files[row]] for row in stored]
            self._crops.append((each, np.array(found, dtype=np.int64)))

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: torch.Tensor, device: torch.device) -> ImageBatch:
        """See `models.examples.Examples.batch`."""
        features = self._features.take(self._stored[rows.numpy()])
        return ImageBatch(features.to(device), self.labels[rows].to(device))

    @property
    def views(self) -> int:
        """See `models.examples.Images.views`."""
        return len(self._crops)

    def view(self, number: int, rows: torch.Tensor, device: torch.device) -> ImageFeatures:
        """See `models.examples.Images.view`."""
        stored, places = self._crops[number]
        return stored.take(places[rows.numpy()]).to(device)
