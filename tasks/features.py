"""Captions as the training step reads them: stored features, or token ids encoded on the fly."""

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.nn import functional as F

from models.backbone import Backbone
from models.scoring import PackedTokens
from models.tai_dpt import CaptionBatch
from tasks.encode import CAPTIONS, TOKENS, Encoded, Indices, StoreDtype, encode_sorted, ranges

CODE: Final = ("tasks/features.py",)


class Captions(Protocol):
    """Encoded captions with labels, read by batch."""

    def __len__(self) -> int:
        """How many captions there are."""
        ...

    def batch(self, rows: torch.Tensor, device: torch.device) -> CaptionBatch:
        """Features and labels of the captions `rows` [B], in an order of its own."""
        ...


def open_captions(folder: Path, classes: Sequence[str], backbone: Backbone) -> Captions:
    """The captions of a finished encode stage; labels are columns in the order of `classes`."""
    if (folder / TOKENS).is_file():
        return CaptionTokens(folder, classes, backbone)
    return CaptionFeatures(folder, classes)


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

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self._labels = _Labels(folder, classes)
        self._shards: list[_Shard] = []
        self._place = np.zeros((len(self._labels), 2), dtype=np.int64)
        for number, path in enumerate(sorted(folder.glob("shard-*.arrow"))):
            batch, self._dtype, file = _read(path)
            rows = batch["caption"].to_numpy()
            self._place[rows] = np.stack([np.full(len(rows), number), np.arange(len(rows))], axis=1)
            self._shards.append(
                _Shard(
                    _matrix(batch["tokens"].values),
                    batch["norms"].values.to_numpy(),
                    _matrix(batch["global"]),
                    batch["tokens"].offsets.to_numpy().copy(),
                    file,
                )
            )

    def __len__(self) -> int:
        return len(self._place)

    def batch(self, rows: torch.Tensor, device: torch.device) -> CaptionBatch:
        """See `Captions.batch`."""
        places = self._place[rows.numpy()]
        parts, positions = [], []
        for number in np.unique(places[:, 0]):
            of_shard = np.flatnonzero(places[:, 0] == number)
            positions.append(of_shard)
            parts.append(_gather(self._shards[number], places[of_shard, 1]))
        tokens, norms, global_, lengths = (
            torch.from_numpy(np.concatenate(arrays)) for arrays in zip(*parts, strict=True)
        )
        kind = getattr(torch, self._dtype)
        encoded = Encoded(tokens.view(kind), norms, global_.view(kind))
        labels = self._labels.of(rows.numpy()[np.concatenate(positions)])
        return _batch(encoded, lengths, labels, device)


class CaptionTokens:
    """Token ids, encoded anew for each batch.

    Features differ from the stored ones by no more than a rounding of the store's dtype: other
    captions share the matrix products.
    """

    def __init__(self, folder: Path, classes: Sequence[str], backbone: Backbone) -> None:
        self._labels = _Labels(folder, classes)
        self._backbone = backbone
        batch, self._dtype, _ = _read(folder / TOKENS)
        self._ids = batch["tokens"].values.to_numpy()
        self._starts = torch.from_numpy(batch["tokens"].offsets.to_numpy().copy())

    def __len__(self) -> int:
        return len(self._labels)

    def batch(self, rows: torch.Tensor, device: torch.device) -> CaptionBatch:
        """See `Captions.batch`."""
        lengths = self._starts[rows + 1] - self._starts[rows]
        order = torch.argsort(lengths, stable=True)
        rows, lengths = rows[order], lengths[order]
        ids = self._ids[ranges(self._starts[rows].numpy(), lengths.numpy())]
        encoded = encode_sorted(ids, lengths, self._backbone, self._dtype)
        return _batch(encoded, lengths, self._labels.of(rows.numpy()), device)


class _Labels:
    """Classes of each caption; dense only for a batch."""

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        lists = pq.read_table(folder / CAPTIONS, columns=["classes"])["classes"].combine_chunks()
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
    encoded: Encoded, lengths: torch.Tensor, labels: torch.Tensor, device: torch.device
) -> CaptionBatch:
    tokens = PackedTokens(
        hidden=encoded.tokens.to(device),
        offsets=F.pad(lengths.cumsum(0), (1, 0)).to(device),
        norms=encoded.norms.to(device),
    )
    # rounding has left them a little off unit length
    unit = F.normalize(encoded.global_.to(device).float(), dim=-1)
    return CaptionBatch(global_=unit, tokens=tokens, labels=labels.to(device))


def _gather(shard: _Shard, rows: Indices) -> tuple[npt.NDArray[Any], ...]:
    """Tokens, norms, global features and lengths of some rows of a shard, copied."""
    lengths = shard.offsets[rows + 1] - shard.offsets[rows]
    flat = ranges(shard.offsets[rows], lengths)
    copies = shard.tokens[flat], shard.norms[flat], shard.global_[rows], lengths
    # the pages stay in the system's cache, and count no more as this process's memory
    shard.file.madvise(mmap.MADV_DONTNEED)
    return copies


def _read(path: Path) -> tuple[pa.RecordBatch, StoreDtype, mmap.mmap]:
    """The rows of a file, as views of its memory map; their dtype; and the map."""
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    reader = pa.ipc.open_file(pa.py_buffer(mapped))
    return reader.get_batch(0), reader.schema.metadata[b"dtype"].decode(), mapped


def _matrix(array: pa.FixedSizeListArray) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = array.flatten().to_numpy()
    return values.reshape(len(array), array.type.list_size)
