"""Encode stage: a partition's captions through the frozen text tower once, never padded to 77.

A shard is one Arrow IPC file with a row per caption, sorted by length, as captions of one length go
through the tower together:

    caption  int64               row in the partition
    tokens   list<fixed[w]>      features up to EOT: the hidden state, or its projection if narrower
    norms    list<f32>           length of each projected token
    global   fixed[d]            the caption's own feature (EOT, projected), L2-normalised

Features are fp16, or bf16 as int16 bits; the schema's metadata says which. A killed run goes on
from the last whole shard. Where features would be larger than the disk or a budget, none are
stored, and `tasks.features` encodes each batch when it is read, on a CPU to the same bits.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE

from models.lazily import lazily
from tasks import arrow
from tasks.arrow import Ids, ranges
from tasks.backbone.devices import device_of
from tasks.backbone.loading import identity_of, load
from tasks.captions import partitions
from tasks.errors import InputError
from tasks.progress import Progress
from tasks.workspace import (
    Recipe,
    Result,
    Stage,
    find_stage,
    has_shard,
    home,
    is_finished,
    recipe_of,
    run_stage,
)

with lazily():
    import torch

    from models.backbone import Backbone
    from models.captions import encode_captions

if TYPE_CHECKING:
    from tasks.profile import Profile

LOG = logging.getLogger("tai")
CAPTIONS_PER_SHARD: Final = 4096
TOKENS_PER_BATCH: Final = 4096
# the rest of a disk is left to the other stages
USABLE_DISK: Final = 0.8
StoreDtype = Literal["float16", "bfloat16"]


@dataclass(frozen=True)
class Encoded:
    """Features of captions end to end, as the store holds them."""

    tokens: torch.Tensor
    """[T, w] hidden states or [T, d] projected features, in the store's dtype."""
    norms: torch.Tensor
    """[T] float32, length of each projected token."""
    global_: torch.Tensor
    """[B, d] L2-normalised, in the store's dtype."""


def stored_partitions(profile: Profile, choice: Stage) -> list[str]:
    """The partitions whose features are stored: all of them, or none where that is too much."""
    sizes: Mapping[str, int] = choice.figures["store_bytes"]
    missing = sum(
        size for part, size in sizes.items() if not is_finished(_recipe(profile, choice, part))
    )
    budget = profile.captions.store_gb
    return list(sizes) if fits(sum(sizes.values()), missing, home(), budget) else []


@task(name="encode", cache_policy=NO_CACHE, task_run_name="encode {part}")
def encode_partition(profile: Profile, choice: Stage, part: str) -> Stage:
    """Features of one partition of the chosen captions, by the frozen text tower."""
    parts = list(choice.figures["store_bytes"])

    def work(out: Path) -> Result:
        figures = write_features(
            choice.file(partitions.tokens_file(choice.place, part).name),
            load(profile).backbone,
            out,
            dtype=profile.captions.dtype,
            name=f"encode, part {parts.index(part) + 1} of {len(parts)}",
        )
        return Result({}, figures)

    return run_stage(_recipe(profile, choice, part), work, resumable=True)


def encoded_partition(profile: Profile, choice: Stage, part: str) -> Stage | None:
    """The finished stage of a partition, if it is there."""
    recipe = _recipe(profile, choice, part)
    return find_stage(recipe.stage, recipe.key) if is_finished(recipe) else None


def _recipe(profile: Profile, choice: Stage, part: str) -> Recipe:
    """The partition's own captions, whatever others were chosen."""
    tokens = partitions.tokens_file(choice.place, part).name
    return recipe_of(
        "encode",
        __name__,
        inputs={"tokens": choice.manifest["outputs"][tokens], "backbone": identity_of(profile)},
        parameters={"dtype": profile.captions.dtype, "device": device_of(profile)},
    )


def store_bytes(captions: int, tokens: int, backbone: Backbone) -> int:
    """How large the features of so many captions and tokens are on disk.

    Of tokens a tower that is not causal has none.
    """
    if not backbone.is_causal:
        return captions * 2 * backbone.dim
    width = backbone.dim if stores_projection(backbone) else backbone.width
    return tokens * (2 * width + 4) + captions * 2 * backbone.dim


def fits(total: int, missing: int, folder: Path, budget_gb: float | None) -> bool:
    """Whether features are stored: `total` bytes within a budget, `missing` ones on the disk.

    A warning says so if they are not.
    """
    usable = USABLE_DISK * shutil.disk_usage(folder).free + total - missing
    limit = usable if budget_gb is None else min(usable, budget_gb * 1e9)
    if total > limit:
        LOG.warning(
            "encode: features need %.1f GB, more than the %.1f GB there are for them; captions are "
            "encoded anew for each step, which is slower. A larger disk for TAI_HOME or "
            "captions.store_gb, or captions.per_image=1, avoids that",
            total / 1e9,
            limit / 1e9,
        )
    return total <= limit


def write_features(
    tokens: Path,
    backbone: Backbone,
    folder: Path,
    *,
    dtype: StoreDtype = "float16",
    name: str = "encode",
) -> dict[str, float]:
    """Encode a partition's `tokens` file into `folder`; finished shards are kept.

    Returns figures: captions/s, bytes per caption. Progress goes by `name`.

    Raises:
        InputError: features that do not fit the dtype.

    """
    ids, lengths = partitions.read_tokens(tokens)
    starts = lengths.cumsum(0) - lengths
    shards = torch.argsort(lengths, stable=True).split(CAPTIONS_PER_SHARD)
    paths = [folder / f"shard-{number:05d}.arrow" for number in range(len(shards))]
    whole = {path for path in paths if has_shard(path)}
    done = sum(len(rows) for rows, path in zip(shards, paths, strict=True) if path in whole)
    progress = Progress(name, len(lengths), "captions", done)
    for rows, path in zip(shards, paths, strict=True):
        if path in whole:
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
            "tokens": arrow.lists(lengths[rows], arrow.vectors(encoded.tokens)),
            "norms": arrow.lists(lengths[rows], pa.array(encoded.norms.numpy())),
            "global": arrow.vectors(encoded.global_),
        }
        arrow.write_rows(path, columns, dtype=dtype)
    size = sum(path.stat().st_size for path in paths)
    return {
        "captions_per_s": round(progress.rate, 1),
        "bytes_per_caption": round(size / len(lengths)),
    }


def stores_projection(backbone: Backbone) -> bool:
    """Whether the projected tokens are narrower than the hidden state, so are what is stored."""
    return backbone.projection is None or backbone.dim < backbone.width


def projection_of(backbone: Backbone) -> torch.Tensor | None:
    """[w, d] from stored token features to the joint space; None where they are in it already."""
    return None if stores_projection(backbone) else backbone.projection


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
            hidden, projected = encode_captions(backbone, tokens, of_batch.to(backbone.device))
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


def _batch_sizes(lengths: torch.Tensor) -> list[int]:
    """How many captions go through the tower together: TOKENS_PER_BATCH tokens or a little more."""
    batch = (lengths.cumsum(0) - 1) // TOKENS_PER_BATCH
    return batch.unique_consecutive(return_counts=True)[1].tolist()  # type: ignore[no-any-return]
