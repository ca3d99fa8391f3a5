"""Encode stage: each training caption through the frozen text tower once, never padded to 77.

A shard is one Arrow IPC file with a row per caption, sorted by length, as captions of one length go
through the tower together:

    caption  int64               row in captions.parquet
    tokens   list<fixed[w]>      features up to EOT: the hidden state, or its projection if narrower
    norms    list<f32>           length of each projected token
    global   fixed[d]            the caption's own feature (EOT, projected), L2-normalised

Features are fp16, or bf16 as int16 bits; the schema's metadata says which. A killed run goes on
from the last whole shard. Where the store would be larger than the disk or a budget, token ids
alone are written, and `tasks.features` encodes each batch when it is read, by the same code.
"""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from models.backbone import Backbone
from models.captions import encode_captions
from tasks.errors import InputError
from tasks.progress import Progress

LOG = logging.getLogger("tai")
CODE: Final = (
    "tasks/encode.py",
    "tasks/backbone.py",
    "models/backbone.py",
    "models/captions.py",
    "models/prefix.py",
    "models/templates.py",
)
CAPTIONS: Final = "captions.parquet"
TOKENS: Final = "tokens.arrow"
CAPTIONS_PER_SHARD: Final = 4096
TOKENS_PER_BATCH: Final = 4096
# the rest of a disk is left to the other stages
USABLE_DISK: Final = 0.8
StoreDtype = Literal["float16", "bfloat16"]
Ids = npt.NDArray[np.int32]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Encoded:
    """Features of captions end to end, as the store holds them."""

    tokens: torch.Tensor
    """[T, w] hidden states or [T, d] projected features, in the store's dtype."""
    norms: torch.Tensor
    """[T] float32, length of each projected token."""
    global_: torch.Tensor
    """[B, d] L2-normalised, in the store's dtype."""


def write_features(
    captions: pa.Table,
    backbone: Backbone,
    folder: Path,
    *,
    dtype: StoreDtype = "float16",
    budget_gb: float | None = None,
) -> dict[str, Any]:
    """Encode `captions` (caption_id, text, classes) into `folder`; finished shards are kept.

    Where the features need more than `budget_gb`, or than the disk has, only token ids are written.

    Returns figures: captions/s, tokens per caption, bytes per caption, GB that features would take.

    Raises:
        InputError: no captions, or features that do not fit the dtype.

    """
    if captions.num_rows == 0:
        raise InputError(
            "no caption names any class of the vocabulary: expected at least one; add synonyms to "
            "the vocabulary, or captions that use them"
        )
    ids, lengths = _tokenize(captions["text"], backbone)
    width = backbone.dim if stores_projection(backbone) else backbone.width
    needed = int(lengths.sum()) * (2 * width + 4) + len(lengths) * 2 * backbone.dim
    figures = {
        "tokens_per_caption": round(float(lengths.float().mean()), 2),
        "store_gb": round(needed / 1e9, 3),
    }
    present = sum(path.stat().st_size for path in folder.glob("shard-*.arrow"))
    usable = USABLE_DISK * shutil.disk_usage(folder).free + present
    limit = usable if budget_gb is None else min(usable, budget_gb * 1e9)
    if needed > limit:
        LOG.warning(
            "encode: features of %s captions need %.1f GB, more than the %.1f GB there are for "
            "them; they are encoded anew for each step, which is slower. A larger disk for "
            "TAI_HOME or captions.store_gb, or captions.per_image=1, avoids that",
            f"{len(lengths):,}",
            needed / 1e9,
            limit / 1e9,
        )
        for path in folder.glob("shard-*.arrow"):
            path.unlink()
        _write(folder / TOKENS, {"tokens": _lists(lengths, pa.array(ids))}, dtype)
        pq.write_table(captions, folder / CAPTIONS, compression="zstd")
        return figures

    (folder / TOKENS).unlink(missing_ok=True)
    order = torch.argsort(lengths, stable=True)
    starts = lengths.cumsum(0) - lengths
    shards = list(order.split(CAPTIONS_PER_SHARD))
    paths = [folder / f"shard-{number:05d}.arrow" for number in range(len(shards))]
    done = sum(len(rows) for rows, path in zip(shards, paths, strict=True) if path.is_file())
    progress = Progress("encode", captions.num_rows, "captions", done)
    for rows, path in zip(shards, paths, strict=True):
        if path.is_file():
            continue
        encoded = encode_sorted(
            ids[ranges(starts[rows].numpy(), lengths[rows].numpy())],
            lengths[rows],
            backbone,
            dtype,
            progress,
        )
        columns = {
            "caption": pa.array(rows.numpy()),
            "tokens": _lists(lengths[rows], _fixed(encoded.tokens)),
            "norms": _lists(lengths[rows], pa.array(encoded.norms.numpy())),
            "global": _fixed(encoded.global_),
        }
        unfinished = path.with_suffix(".part")
        _write(unfinished, columns, dtype)
        unfinished.rename(path)
    # last, as its presence says that the features are whole
    pq.write_table(captions, folder / CAPTIONS, compression="zstd")
    size = sum(path.stat().st_size for path in paths)
    return figures | {
        "captions_per_s": round(progress.rate, 1),
        "bytes_per_caption": round(size / captions.num_rows),
    }


def stores_projection(backbone: Backbone) -> bool:
    """Whether the projected tokens are narrower than the hidden state, so are what is stored."""
    return backbone.projection is None or backbone.dim < backbone.width


def encode_sorted(
    ids: Ids,
    lengths: torch.Tensor,
    backbone: Backbone,
    dtype: StoreDtype,
    progress: Progress | None = None,
) -> Encoded:
    """Features, on the CPU, of captions end to end in `ids`, shortest first.

    Raises:
        InputError: a feature is not finite in `dtype`.

    """
    kind: torch.dtype = getattr(torch, dtype)
    stored, norms, global_ = [], [], []
    start = 0
    # not inference_mode: its tensors could not take part in a training step
    with torch.no_grad():
        for of_batch in lengths.split(_batch_sizes(lengths)):
            stop = start + int(of_batch.sum())
            tokens = torch.from_numpy(ids[start:stop]).long().to(backbone.device)
            start = stop
            hidden = encode_captions(backbone, tokens, of_batch.to(backbone.device))
            projected = backbone.project(hidden)
            kept = projected if stores_projection(backbone) else hidden
            stored.append(kept.to(kind).cpu())
            norms.append(projected.norm(dim=-1).float().cpu())
            at_end = projected[of_batch.cumsum(0).to(projected.device) - 1]
            global_.append(torch.nn.functional.normalize(at_end, dim=-1).to(kind).cpu())
            if not stored[-1].isfinite().all():
                raise InputError(
                    f"field 'captions.dtype': token features of this backbone do not fit {dtype}; "
                    "use bfloat16, or look at the weights"
                )
            if progress:
                progress.add(len(of_batch))
    return Encoded(torch.cat(stored), torch.cat(norms), torch.cat(global_))


def ranges(starts: Indices, lengths: Indices) -> Indices:
    """The `length` numbers from each start on, end to end."""
    ends = np.cumsum(lengths)
    flat: Indices = np.arange(ends[-1]) + np.repeat(starts - (ends - lengths), lengths)
    return flat


def _tokenize(texts: pa.ChunkedArray, backbone: Backbone) -> tuple[Ids, torch.Tensor]:
    """Token ids of all captions end to end, without padding, and each one's length."""
    ids, lengths = [], []
    progress = Progress("tokenize", len(texts), "captions")
    for start in range(0, len(texts), CAPTIONS_PER_SHARD):
        part = texts.slice(start, CAPTIONS_PER_SHARD).to_pylist()
        tokens = backbone.tokenize(part)
        lengths.append(backbone.lengths(tokens))
        inside = torch.arange(tokens.shape[1]) < lengths[-1][:, None]
        ids.append(tokens[inside].int().numpy())
        progress.add(len(part))
    return np.concatenate(ids), torch.cat(lengths)


def _batch_sizes(lengths: torch.Tensor) -> list[int]:
    """How many captions go through the tower together: TOKENS_PER_BATCH tokens or a little more."""
    batch = (lengths.cumsum(0) - 1) // TOKENS_PER_BATCH
    return batch.unique_consecutive(return_counts=True)[1].tolist()  # type: ignore[no-any-return]


def _write(path: Path, columns: dict[str, pa.Array], dtype: StoreDtype) -> None:
    rows = pa.record_batch(columns)
    rows = rows.replace_schema_metadata({"dtype": dtype})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_batch(rows)


def _lists(lengths: torch.Tensor, values: pa.Array) -> pa.LargeListArray:
    offsets = np.concatenate([[0], lengths.cumsum(0).numpy()])
    return pa.LargeListArray.from_arrays(pa.array(offsets), values)


def _fixed(matrix: torch.Tensor) -> pa.Array:
    bits = matrix.view(torch.int16) if matrix.dtype == torch.bfloat16 else matrix
    return pa.FixedSizeListArray.from_arrays(pa.array(bits.numpy().reshape(-1)), matrix.shape[-1])
