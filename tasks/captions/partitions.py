"""Choose stage: the captions to train on, tokenised, in partitions that are encoded one by one.

A partition is what was chosen of one caption file, cut where that is more than
CAPTIONS_PER_PARTITION, or the class templates, which come last. It is two files with a row per
caption:

    part-00000.parquet   caption_id, text, classes, spans
    part-00000.arrow     tokens list<i32>, ids up to EOT, without padding

Features depend on the second alone, so those of a caption file last while others come and go.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.lazily import lazily
from tasks import arrow
from tasks.arrow import Ids
from tasks.progress import Progress

with lazily():
    import torch

    from models.backbone import Backbone

CAPTIONS_PER_PARTITION: Final = 65_536
CAPTIONS_AT_ONCE: Final = 4096


def write_partitions(
    captions: Sequence[pa.Table], backbone: Backbone, folder: Path
) -> dict[str, tuple[int, int]]:
    """Write tables (caption_id, text, classes, spans) to `folder` as partitions, in their order.

    Returns each partition's number of captions and of tokens, by its name.
    """
    parts = [
        table.slice(start, CAPTIONS_PER_PARTITION).combine_chunks()
        for table in captions
        for start in range(0, table.num_rows, CAPTIONS_PER_PARTITION)
    ]
    progress = Progress("tokenize", sum(part.num_rows for part in parts), "captions")
    sizes = {}
    for number, part in enumerate(parts):
        name = f"part-{number:05d}"
        ids, lengths = _tokenize(part["text"], backbone, progress)
        arrow.write_rows(tokens_file(folder, name), {"tokens": arrow.lists(lengths, pa.array(ids))})
        pq.write_table(part, folder / f"{name}.parquet", compression="zstd")
        sizes[name] = len(lengths), len(ids)
    return sizes


def tokens_file(folder: Path, name: str) -> Path:
    """File of a partition's token ids."""
    return folder / f"{name}.arrow"


def read_tokens(path: Path) -> tuple[Ids, torch.Tensor]:
    """Token ids [T] of a partition's captions end to end, and how many each caption has, [B]."""
    tokens = arrow.read_rows(path).rows["tokens"]
    return tokens.values.to_numpy(), torch.from_numpy(np.diff(tokens.offsets.to_numpy()))


def read_classes(folder: Path) -> pa.ListArray:
    """Classes of all captions, partition by partition."""
    paths = sorted(folder.glob("part-*.parquet"))
    tables = [pq.read_table(path, columns=["classes"]) for path in paths]
    return pa.concat_tables(tables)["classes"].combine_chunks()


def _tokenize(
    texts: pa.ChunkedArray, backbone: Backbone, progress: Progress
) -> tuple[Ids, torch.Tensor]:
    """Token ids of captions end to end, without padding, and each one's length."""
    ids, lengths = [], []
    for start in range(0, len(texts), CAPTIONS_AT_ONCE):
        part = texts.slice(start, CAPTIONS_AT_ONCE).to_pylist()
        tokens = backbone.tokenize(part)
        lengths.append(backbone.lengths(tokens))
        inside = torch.arange(tokens.shape[1]) < lengths[-1][:, None]
        ids.append(tokens[inside].int().numpy())
        progress.add(len(part))
    return np.concatenate(ids), torch.cat(lengths)
