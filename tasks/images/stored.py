"""What was worked out of images, read from finished partitions (see `tasks.images.parts`)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.lazily import lazily
from tasks import arrow

with lazily():
    import torch

CONTENTS: Final = "contents.parquet"
SCHEMA: Final = pa.schema(
    {
        "content": pa.string(),
        "shard": pa.string(),
        "row": pa.int32(),
        "digest": pa.string(),
    }
)
SHARDS_OPEN: Final = 1024


class Rows:
    """Results of some images, in the order asked for, as views of partitions' files.

    Args:
        parts: folders of finished partitions.
        digests: of the results; equal ones are the same bytes, wherever they lie.

    """

    def __init__(self, parts: Sequence[Path], digests: pa.ChunkedArray) -> None:
        columns = ["shard", "row", "digest"]
        tables = [pq.read_table(folder / CONTENTS, columns=columns) for folder in parts]
        kept = pa.concat_tables([table.filter(pc.is_valid(table["digest"])) for table in tables])
        shards: list[Path] = []
        numbers: list[npt.NDArray[np.int64]] = []
        for folder, table in zip(parts, tables, strict=True):
            names = table.filter(pc.is_valid(table["digest"]))["shard"].combine_chunks()
            coded = names.dictionary_encode()
            numbers.append(coded.indices.to_numpy() + len(shards))
            shards += [folder / name for name in coded.dictionary.to_pylist()]
        places = pc.index_in(digests, value_set=kept["digest"].combine_chunks()).to_numpy()
        self._shards = shards
        self._shard = np.concatenate(numbers)[places]
        self._row = kept["row"].to_numpy()[places]

    def __len__(self) -> int:
        return len(self._row)

    def take(self, name: str, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        """[B, ...] copies of one thing's results, in the type that is stored."""
        shards, places = self._shard[rows], self._row[rows]
        first = _results(self._shards[shards[0]], name)
        found: npt.NDArray[Any] = np.empty((len(rows), *first.shape[1:]), first.dtype)
        for shard in np.unique(shards):
            here = shards == shard
            found[here] = _results(self._shards[shard], name)[places[here]]
        return torch.from_numpy(found)


def shard_columns(
    contents: Sequence[str], results: Mapping[str, torch.Tensor]
) -> dict[str, pa.Array]:
    """Columns of a shard: contents, a SHA-256 of each one's results, and the results [N, ...]."""
    digests = [
        hashlib.sha256(b"".join(one.numpy().tobytes() for one in row)).hexdigest()
        for row in zip(*results.values(), strict=True)
    ]
    known = {"content": pa.array(contents, pa.string()), "digest": pa.array(digests, pa.string())}
    return known | {name: arrow.vectors(result) for name, result in results.items()}


def placed(contents: Sequence[str], path: Path) -> pa.Table:
    """Where the results of images lie that a shard was made of, in their order."""
    rows = arrow.read_rows(path).rows
    row = pc.index_in(pa.array(contents, pa.string()), value_set=rows["content"])
    columns = [contents, [path.name] * len(contents), row, rows["digest"].take(row)]
    return pa.table(columns, schema=SCHEMA)


def _results(path: Path, name: str) -> npt.NDArray[Any]:
    """One thing of a shard, as a view of the memory-mapped file that is there now."""
    status = path.stat()
    return _mapped(path, name, (status.st_ino, status.st_mtime_ns))


@lru_cache(maxsize=SHARDS_OPEN)
def _mapped(path: Path, name: str, seen: tuple[int, int]) -> npt.NDArray[Any]:
    return arrow.matrix_of(arrow.read_rows(path).rows[name])
