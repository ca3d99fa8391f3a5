"""Arrow IPC files of one record batch: written whole, read as views of a memory map."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.lazily import lazily
from tasks.workspace import finish_shard

with lazily():
    import torch

Ids = npt.NDArray[np.int32]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Mapped:
    """A file's rows, as views of its memory map."""

    rows: pa.RecordBatch
    metadata: dict[str, str]
    file: mmap.mmap


def write_rows(path: Path, columns: Mapping[str, pa.Array], **metadata: str) -> None:
    """Write columns as a file, which is there whole or not at all."""
    rows = pa.record_batch(dict(columns)).replace_schema_metadata(metadata)
    unfinished = path.with_suffix(".part")
    with pa.OSFile(str(unfinished), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_batch(rows)
    finish_shard(unfinished, path)


def read_rows(path: Path) -> Mapped:
    """The rows of a file."""
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    reader = pa.ipc.open_file(pa.py_buffer(mapped))
    metadata = {k.decode(): v.decode() for k, v in (reader.schema.metadata or {}).items()}
    return Mapped(reader.get_batch(0), metadata, mapped)


def lists(lengths: torch.Tensor, values: pa.Array) -> pa.LargeListArray:
    """Values end to end as lists of the given lengths."""
    offsets = np.concatenate([[0], lengths.cumsum(0).numpy()])
    return pa.LargeListArray.from_arrays(pa.array(offsets), values)


def vectors(tensor: torch.Tensor) -> pa.FixedSizeListArray:
    """The rows of a tensor [B, ...]; bf16 as int16 bits."""
    bits = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
    array = pa.array(bits.numpy().reshape(-1))
    for size in reversed(tensor.shape[1:]):
        array = pa.FixedSizeListArray.from_arrays(array, size)
    return array


def matrix_of(array: pa.FixedSizeListArray) -> npt.NDArray[Any]:
    """`vectors` again, as a view."""
    shape = [len(array)]
    while pa.types.is_fixed_size_list(array.type):
        shape.append(array.type.list_size)
        array = array.flatten()
    values: npt.NDArray[Any] = array.to_numpy()
    return values.reshape(shape)


def ranges(starts: Indices, lengths: Indices) -> Indices:
    """The `length` numbers from each start on, end to end."""
    ends = np.cumsum(lengths)
    flat: Indices = np.arange(ends[-1]) + np.repeat(starts - (ends - lengths), lengths)
    return flat
