"""Captions as the training step reads them: stored features, or token ids encoded on the fly."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.lazily import lazily
from tasks import arrow
from tasks.arrow import Indices, ranges
from tasks.captions import partitions
from tasks.captions.encode import Encoded, StoreDtype, encode_sorted, projection_of

with lazily():
    import torch
    from torch.nn import functional as F

    from models.backbone import Backbone
    from models.examples import CaptionBatch, Captions
    from models.scoring import PackedTokens


def open_captions(
    choice: Path,
    features: Sequence[Path],
    classes: Sequence[str],
    backbone: Backbone,
    dtype: StoreDtype,
) -> Captions:
    """All captions of a finished choose stage, partition by partition.

    Args:
        choice: the stage's folder.
        features: folder of each partition's features, in order; none: they are encoded anew.
        classes: labels are columns in their order.
        backbone: encodes what is not stored.
        dtype: of features that are not stored.

    """
    if features:
        return CaptionFeatures(choice, features, classes, backbone)
    return CaptionTokens(choice, classes, backbone, dtype)


@dataclass(frozen=True)
class _Shard:
    """Views into one memory-mapped file."""

    tokens: npt.NDArray[Any]
    norms: npt.NDArray[np.float32]
    global_: npt.NDArray[Any]
    offsets: Indices
    file: mmap.mmap


class CaptionFeatures:
    """Stored features, memory-mapped: a batch copies its own rows and keeps no others in memory."""

    def __init__(
        self, choice: Path, features: Sequence[Path], classes: Sequence[str], backbone: Backbone
    ) -> None:
        self._labels = Labels(choice, classes)
        self._projection = projection_of(backbone)
        self._shards: list[_Shard] = []
        self._place = np.zeros((len(self._labels), 2), dtype=np.int64)
        self._lengths = np.zeros(len(self._labels), dtype=np.int64)
        first = 0
        for folder in features:
            of_folder = [arrow.read_rows(path) for path in sorted(folder.glob("shard-*.arrow"))]
            for shard in of_folder:
                columns, number = shard.rows, len(self._shards)
                rows = first + columns["caption"].to_numpy()
                offsets = columns["tokens"].offsets.to_numpy().copy()
                self._place[rows] = np.stack(
                    [np.full(len(rows), number), np.arange(len(rows))], axis=1
                )
                self._lengths[rows] = np.diff(offsets)
                self._dtype = shard.metadata["dtype"]
                self._shards.append(
                    _Shard(
                        arrow.matrix_of(columns["tokens"].values),
                        columns["norms"].values.to_numpy(),
                        arrow.matrix_of(columns["global"]),
                        offsets,
                        shard.file,
                    )
                )
            first += sum(len(shard.rows) for shard in of_folder)

    def __len__(self) -> int:
        return len(self._place)

    def batch(self, rows: torch.Tensor, device: torch.device) -> CaptionBatch:
        """See `Captions.batch`."""
        places, lengths = self._place[rows.numpy()], self._lengths[rows.numpy()]
        starts = np.cumsum(lengths) - lengths
        one = self._shards[0]
        tokens = np.empty((lengths.sum(), one.tokens.shape[1]), one.tokens.dtype)
        norms = np.empty(len(tokens), one.norms.dtype)
        global_ = np.empty((len(rows), one.global_.shape[1]), one.global_.dtype)
        for number in np.unique(places[:, 0]):
            shard = self._shards[number]
            here = np.flatnonzero(places[:, 0] == number)
            there = places[here, 1]
            to = ranges(starts[here], lengths[here])
            source = ranges(shard.offsets[there], lengths[here])
            tokens[to], norms[to] = shard.tokens[source], shard.norms[source]
            global_[here] = shard.global_[there]
            # the pages stay in the system's cache, and count no more as this process's memory
            shard.file.madvise(mmap.MADV_DONTNEED)
        kind = getattr(torch, self._dtype)
        encoded = Encoded(
            torch.from_numpy(tokens).view(kind),
            torch.from_numpy(norms),
            torch.from_numpy(global_).view(kind),
        )
        labels = self._labels.of(rows.numpy())
        return _batch(encoded, torch.from_numpy(lengths), labels, device, self._projection)


class CaptionTokens:
    """Token ids, encoded anew for each batch: the features that would be stored."""

    def __init__(
        self, choice: Path, classes: Sequence[str], backbone: Backbone, dtype: StoreDtype
    ) -> None:
        self._labels = Labels(choice, classes)
        self._backbone, self._dtype = backbone, dtype
        parts = [partitions.read_tokens(path) for path in sorted(choice.glob("part-*.arrow"))]
        self._ids = np.concatenate([ids for ids, _ in parts])
        self._lengths = torch.cat([lengths for _, lengths in parts])
        self._starts = self._lengths.cumsum(0) - self._lengths

    def __len__(self) -> int:
        return len(self._labels)

    def batch(self, rows: torch.Tensor, device: torch.device) -> CaptionBatch:
        """See `Captions.batch`."""
        order = torch.argsort(self._lengths[rows], stable=True)
        starts, lengths = self._starts[rows[order]].numpy(), self._lengths[rows[order]]
        ids = self._ids[ranges(starts, lengths.numpy())]
        ordered = encode_sorted(ids, lengths, self._backbone, self._dtype)
        back = torch.argsort(order)
        starts = (lengths.cumsum(0) - lengths)[back].numpy()
        lengths = lengths[back]
        of_rows = torch.from_numpy(ranges(starts, lengths.numpy()))
        encoded = Encoded(ordered.tokens[of_rows], ordered.norms[of_rows], ordered.global_[back])
        labels = self._labels.of(rows.numpy())
        return _batch(encoded, lengths, labels, device, projection_of(self._backbone))


class Labels:
    """Classes of each caption; dense only for a batch."""

    def __init__(self, choice: Path, classes: Sequence[str]) -> None:
        lists = partitions.read_classes(choice)
        index = {label: i for i, label in enumerate(classes)}
        names = lists.flatten().dictionary_encode()
        columns = np.array([index[name] for name in names.dictionary.to_pylist()], dtype=np.int64)
        self._columns = columns[names.indices.to_numpy()]
        self._offsets = np.searchsorted(
            lists.value_parent_indices().to_numpy(), np.arange(len(lists) + 1)
        )
        self._classes = len(classes)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def of(self, rows: Indices) -> torch.Tensor:
        """[B, C] booleans."""
        counts = self._offsets[rows + 1] - self._offsets[rows]
        columns = self._columns[ranges(self._offsets[rows], counts)]
        labels = torch.zeros(len(rows), self._classes, dtype=torch.bool)
        labels[np.repeat(np.arange(len(rows)), counts), columns] = True
        return labels


def _batch(
    encoded: Encoded,
    lengths: torch.Tensor,
    labels: torch.Tensor,
    device: torch.device,
    projection: torch.Tensor | None,
) -> CaptionBatch:
    tokens = PackedTokens(
        hidden=encoded.tokens.to(device),
        offsets=F.pad(lengths.cumsum(0), (1, 0)).to(device),
        norms=encoded.norms.to(device),
        projection=projection,
    )
    # rounding has left them a little off unit length
    unit = F.normalize(encoded.global_.to(device).float(), dim=-1)
    return CaptionBatch(global_=unit, tokens=tokens, labels=labels.to(device))
