"""Encode stage: each training caption through the frozen text tower once, never padded to 77.

A shard is one Arrow IPC file with a row per caption, sorted by length so that captions of one
length go through the tower together:

    caption  int64               row in captions.parquet
    tokens   list<fixed[w] f16>  features up to EOT: the hidden state, or its projection if narrower
    norms    list<f32>           length of each projected token
    global   fixed[d] f16        the caption's own feature (EOT, projected), L2-normalised

Shards are memory-mapped; a batch copies its own rows and no others. A killed run goes on from the
last whole shard.
"""

import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from models.backbone import Backbone
from models.scoring import PackedTokens
from models.tai_dpt import CaptionBatch
from tasks.errors import InputError
from tasks.progress import Progress

LOG = logging.getLogger("tai")
CODE: Final = (
    "tasks/encode.py",
    "tasks/backbone.py",
    "models/backbone.py",
    "models/templates.py",
)
CAPTIONS: Final = "captions.parquet"
CAPTIONS_PER_SHARD: Final = 4096
TOKENS_PER_BATCH: Final = 4096
Indices = npt.NDArray[np.int64]


def write_features(captions: pa.Table, backbone: Backbone, folder: Path) -> dict[str, Any]:
    """Encode `captions` (caption_id, text, classes) into `folder`; finished shards are kept.

    Returns figures: captions/s, tokens per caption, bytes per caption.

    Raises:
        InputError: no captions, or not enough room on the disk.

    """
    if captions.num_rows == 0:
        raise InputError(
            "no caption names any class of the vocabulary: expected at least one; add synonyms to "
            "the vocabulary, or captions that use them"
        )
    tokens = backbone.tokenize(captions["text"].to_pylist())
    lengths = backbone.lengths(tokens)
    order = torch.argsort(lengths, stable=True)
    stored_width = backbone.dim if stores_projection(backbone) else backbone.width
    _check_room(folder, int(lengths.sum()) * (2 * stored_width + 4))

    shards = list(order.split(CAPTIONS_PER_SHARD))
    paths = [folder / f"shard-{number:05d}.arrow" for number in range(len(shards))]
    done = sum(len(rows) for rows, path in zip(shards, paths, strict=True) if path.is_file())
    progress = Progress("encode", captions.num_rows, "captions", done)
    for rows, path in zip(shards, paths, strict=True):
        if path.is_file():
            continue
        unfinished = path.with_suffix(".part")
        _write_shard(unfinished, rows, tokens[rows], lengths[rows], backbone, progress)
        unfinished.rename(path)
    # last, as its presence says that the features are whole
    pq.write_table(captions, folder / CAPTIONS, compression="zstd")
    size = sum(path.stat().st_size for path in paths)
    return {
        "captions_per_s": round(progress.rate, 1),
        "tokens_per_caption": round(float(lengths.float().mean()), 2),
        "bytes_per_caption": round(size / captions.num_rows),
    }


def stores_projection(backbone: Backbone) -> bool:
    """Whether the projected tokens are narrower than the hidden state, so are what is stored."""
    return backbone.projection is None or backbone.dim < backbone.width


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{folder}: the caption features need {needed / 1e9:.1f} GB and the disk has "
            f"{free / 1e9:.1f} GB free; set TAI_HOME to a larger disk, or captions.per_image to 1"
        )


def _length_batches(lengths: torch.Tensor) -> Iterator[slice]:
    """Runs of captions, sorted by length, of at most TOKENS_PER_BATCH tokens with padding."""
    start, values = 0, lengths.tolist()
    for stop in range(1, len(values) + 1):
        is_full = stop < len(values) and (stop + 1 - start) * values[stop] > TOKENS_PER_BATCH
        if stop == len(values) or is_full:
            yield slice(start, stop)
            start = stop


@torch.inference_mode()
def _write_shard(
    path: Path,
    rows: torch.Tensor,
    tokens: torch.Tensor,
    lengths: torch.Tensor,
    backbone: Backbone,
    progress: Progress,
) -> None:
    stored, norms, global_ = [], [], []
    for batch in _length_batches(lengths):
        longest = int(lengths[batch][-1])
        hidden = backbone.encode_text(tokens[batch, :longest].to(backbone.device))
        projected = backbone.project(hidden)
        ends = lengths[batch].to(hidden.device)
        inside = torch.arange(longest, device=hidden.device) < ends[:, None]
        kept = projected if stores_projection(backbone) else hidden
        stored.append(kept[inside].half().cpu())
        norms.append(projected[inside].norm(dim=-1).float().cpu())
        at_end = projected[torch.arange(len(ends), device=hidden.device), ends - 1]
        global_.append(torch.nn.functional.normalize(at_end, dim=-1).half().cpu())
        progress.add(len(ends))
    offsets = pa.array(np.concatenate([[0], lengths.cumsum(0).numpy()]).astype(np.int32))
    columns = {
        "caption": pa.array(rows.numpy()),
        "tokens": pa.ListArray.from_arrays(offsets, _fixed(torch.cat(stored))),
        "norms": pa.ListArray.from_arrays(offsets, pa.array(torch.cat(norms).numpy())),
        "global": _fixed(torch.cat(global_)),
    }
    batch_of_rows = pa.record_batch(columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch_of_rows.schema) as writer:
        writer.write_batch(batch_of_rows)


def _fixed(matrix: torch.Tensor) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.numpy().reshape(-1)), matrix.shape[-1])


@dataclass(frozen=True)
class _Shard:
    """Views into one memory-mapped file."""

    tokens: npt.NDArray[np.float16]
    norms: npt.NDArray[np.float32]
    global_: npt.NDArray[np.float16]
    offsets: Indices


class CaptionFeatures:
    """The encoded captions of a finished stage, read by batch without copying the files."""

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        """Open `folder`; labels become columns in the order of `classes`."""
        table = pq.read_table(folder / CAPTIONS)
        self.labels = _label_matrix(table["classes"], classes)
        self._shards: list[_Shard] = []
        self._place = np.zeros((table.num_rows, 2), dtype=np.int64)
        for number, path in enumerate(sorted(folder.glob("shard-*.arrow"))):
            batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
            rows = batch["caption"].to_numpy()
            self._place[rows] = np.stack([np.full(len(rows), number), np.arange(len(rows))], axis=1)
            self._shards.append(
                _Shard(
                    _matrix(batch["tokens"].values),
                    batch["norms"].values.to_numpy(),
                    _matrix(batch["global"]),
                    batch["tokens"].offsets.to_numpy().astype(np.int64),
                )
            )

    def __len__(self) -> int:
        return len(self._place)

    def batch(self, rows: torch.Tensor, device: torch.device) -> CaptionBatch:
        """Features and labels of the captions `rows` [B], in an order of its own."""
        places = self._place[rows.numpy()]
        parts, positions = [], []
        for number in np.unique(places[:, 0]):
            of_shard = np.flatnonzero(places[:, 0] == number)
            positions.append(of_shard)
            parts.append(_gather(self._shards[number], places[of_shard, 1]))
        tokens, norms, global_, lengths = (
            np.concatenate(arrays) for arrays in zip(*parts, strict=True)
        )
        labels = self.labels[rows.numpy()[np.concatenate(positions)]]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        unit = torch.nn.functional.normalize(torch.from_numpy(global_).to(device).float(), dim=-1)
        packed = PackedTokens(
            hidden=torch.from_numpy(tokens).to(device),
            offsets=torch.from_numpy(offsets).to(device),
            norms=torch.from_numpy(norms).to(device),
        )
        return CaptionBatch(global_=unit, tokens=packed, labels=torch.from_numpy(labels).to(device))


def _gather(shard: _Shard, rows: Indices) -> tuple[npt.NDArray[Any], ...]:
    """Tokens, norms, global features and lengths of some rows of a shard, copied."""
    starts = shard.offsets[rows]
    lengths = shard.offsets[rows + 1] - starts
    ends = np.cumsum(lengths)
    flat = np.arange(ends[-1]) + np.repeat(starts - (ends - lengths), lengths)
    return shard.tokens[flat], shard.norms[flat], shard.global_[rows], lengths


def _matrix(array: pa.FixedSizeListArray) -> npt.NDArray[np.float16]:
    values: npt.NDArray[np.float16] = array.flatten().to_numpy()
    return values.reshape(len(array), array.type.list_size)


def _label_matrix(column: pa.ChunkedArray, classes: Sequence[str]) -> npt.NDArray[np.bool_]:
    """[captions, C] booleans from lists of class names."""
    lists = column.combine_chunks()
    index = {label: i for i, label in enumerate(classes)}
    names = lists.flatten().dictionary_encode()
    columns = np.array([index[name] for name in names.dictionary.to_pylist()], dtype=np.int64)
    labels = np.zeros((len(lists), len(classes)), dtype=np.bool_)
    labels[lists.value_parent_indices().to_numpy(), columns[names.indices.to_numpy()]] = True
    return labels
