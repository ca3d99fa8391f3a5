"""Images stage: every image of a set through the frozen tower once."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE

from models.lazily import lazily
from tasks.backbone.devices import device_of
from tasks.backbone.loading import LoadedBackbone, identity_of, load
from tasks.errors import InputError
from tasks.images.decode import content_sha256, decode
from tasks.images.image_sets import ENTRIES
from tasks.progress import Progress
from tasks.workspace import (
    Result,
    Stage,
    digest_of,
    finish_shard,
    has_shard,
    recipe_of,
    run_stage,
)

with lazily():
    import torch
    from torch.utils.data import DataLoader, Dataset

    from models.backbone import ImageFeatures

if TYPE_CHECKING:
    from tasks.profile import Profile
    from tasks.settings import ImageSet

LOG = logging.getLogger("tai")
IMAGES: Final = "images.parquet"
REJECTS: Final = "rejects.parquet"
FEATURES: Final = ("pooled", "pooled_plain", "dense")
"""As in `ImageFeatures`, in its order."""
IMAGES_PER_BATCH: Final = 16
IMAGES_PER_SHARD: Final = 1024
IMAGES_PER_READ: Final = 128
FEWEST_FOR_WORKERS: Final = 2048
"""Below that many images, starting worker processes takes longer than they save."""
MOST_WORKERS: Final = 8


@task(name="images", cache_policy=NO_CACHE, task_run_name="images {image_set.name}")
def encode_images(profile: Profile, image_set: ImageSet, listed: Stage) -> Stage:
    """Global and dense features of an image set, whatever its images show."""
    files = pq.read_table(listed.file(ENTRIES), columns=["file"])["file"].to_pylist()
    return encode_files(profile, profile.path(image_set.folder), files)


def encode_files(profile: Profile, folder: Path, files: Sequence[str]) -> Stage:
    """Global and dense features of a folder's files."""
    content = {file: content_sha256(folder / file) for file in files}

    def work(out: Path) -> Result:
        return Result(*write_image_features(files, folder, load(profile), out))

    recipe = recipe_of(
        "images",
        __name__,
        inputs={"images": digest_of([list(files), content]), "backbone": identity_of(profile)},
        parameters={"device": device_of(profile)},
    )
    return run_stage(recipe, work, resumable=True)


def write_image_features(
    files: Sequence[str], folder: Path, loaded: LoadedBackbone, out: Path
) -> tuple[dict[str, int], dict[str, Any]]:
    """Encode images into fp16 shards under `out`; an image that cannot be read is listed apart.

    Returns:
        Counts images/read = images/kept + images/rejected, and figures.

    Raises:
        InputError: no image at all can be read.

    """
    shards = [
        files[start : start + IMAGES_PER_SHARD] for start in range(0, len(files), IMAGES_PER_SHARD)
    ]
    paths = [out / f"shard-{number:05d}.arrow" for number in range(len(shards))]
    pending = [(s, path) for s, path in zip(shards, paths, strict=True) if not has_shard(path)]
    left = sum(len(shard) for shard, _ in pending)
    progress = Progress("images", len(files), "images", len(files) - left)
    decoded = _decoded([shard for shard, _ in pending], folder, loaded)
    for shard, path in pending:
        unfinished = path.with_suffix(".part")
        batches = -(-len(shard) // IMAGES_PER_BATCH)
        _write_shard(unfinished, islice(decoded, batches), loaded, progress)
        finish_shard(unfinished, path)
    kept = [file for path in paths for file in _shard(path)["file"].to_pylist()]
    bad = [
        {"file": file, "reason": str(decode(folder / file))}
        for file in sorted(set(files) - set(kept))
    ]
    if not kept:
        raise InputError(f"{folder / bad[0]['file']}: {bad[0]['reason']}; no image could be read")
    for row in bad:
        LOG.warning("images: %s left out: %s", row["file"], row["reason"])
    reject_schema = pa.schema({"file": pa.string(), "reason": pa.string()})
    pq.write_table(pa.Table.from_pylist(bad, schema=reject_schema), out / REJECTS)
    pq.write_table(pa.table({"file": kept}), out / IMAGES)
    counts = {"images/read": len(files), "images/kept": len(kept), "images/rejected": len(bad)}
    return counts, {"images_per_s": round(progress.rate, 2)}


def feature_batches(folder: Path) -> Iterator[ImageFeatures]:
    """Features of a finished stage in order, as float32, some images at a time."""
    for shard in feature_shards(folder):
        for start in range(0, len(shard[FEATURES[0]]), IMAGES_PER_READ):
            rows = slice(start, start + IMAGES_PER_READ)
            parts = (torch.from_numpy(np.array(shard[name][rows])) for name in FEATURES)
            yield ImageFeatures(*parts).to("cpu")


def feature_shards(folder: Path) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Features of a finished stage by name and shard, memory-mapped: [B, d] and [B, N, d] fp16."""
    for path in sorted(folder.glob("shard-*.arrow")):
        shard = _shard(path)
        if shard.num_rows:
            yield {name: _matrix(shard[name]) for name in FEATURES}


@dataclass(frozen=True)
class _Decoded:
    """A batch of images, without those that cannot be used."""

    files: list[str]
    images: npt.NDArray[np.float32] | None
    """[B, 3, R, R], or None if there is none."""
    read: int
    """Files looked at."""


class _Files:
    """Image files, decoded, resized and normalised when asked for: what a DataLoader looks into."""

    def __init__(self, files: Sequence[str], folder: Path, preprocess: Any) -> None:
        self._files, self._folder, self._preprocess = files, folder, preprocess

    def __getitem__(self, number: int) -> tuple[str, torch.Tensor | None]:
        file = self._files[number]
        return file, _decode(self._folder / file, self._preprocess)


def _decoded(
    shards: Sequence[Sequence[str]], folder: Path, loaded: LoadedBackbone
) -> Iterator[_Decoded]:
    """Batches of the shards' images in order, none across two shards.

    Worker processes decode ahead of the model where there are many images.
    """
    files = [file for shard in shards for file in shard]
    numbers = iter(range(len(files)))
    batches = [
        list(islice(numbers, min(IMAGES_PER_BATCH, len(shard) - start)))
        for shard in shards
        for start in range(0, len(shard), IMAGES_PER_BATCH)
    ]
    workers, context = 0, None
    if len(files) >= FEWEST_FOR_WORKERS:
        workers = min(MOST_WORKERS, os.cpu_count() or 1)
        # a fork of this process could inherit a lock that one of its threads holds
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
    yield from DataLoader(
        cast("Dataset[tuple[str, torch.Tensor | None]]", _Files(files, folder, loaded.preprocess)),
        batch_sampler=batches,
        collate_fn=_collate,
        num_workers=workers,
        multiprocessing_context=context,
    )


def _collate(decoded: list[tuple[str, torch.Tensor | None]]) -> _Decoded:
    whole = [(file, image) for file, image in decoded if image is not None]
    # arrays travel through a pipe; tensors would need more shared memory than containers have
    images = np.stack([image.numpy() for _, image in whole]) if whole else None
    return _Decoded([file for file, _ in whole], images, len(decoded))


def _write_shard(
    path: Path, batches: Iterator[_Decoded], loaded: LoadedBackbone, progress: Progress
) -> None:
    found: dict[str, list[torch.Tensor]] = {name: [] for name in FEATURES}
    files: list[str] = []
    for decoded in batches:
        if decoded.images is not None:
            batch = torch.from_numpy(decoded.images)
            batch = batch.to(loaded.backbone.device, memory_format=torch.channels_last)
            with torch.inference_mode():
                features = loaded.backbone.encode_images(batch)
            for name in FEATURES:
                found[name].append(getattr(features, name).half().cpu())
            files += decoded.files
        progress.add(decoded.read)
    columns = {"file": pa.array(files, pa.string())}
    for name in FEATURES:
        columns[name] = _array(torch.cat(found[name])) if files else pa.nulls(0)
    rows = pa.record_batch(columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_batch(rows)


def _decode(path: Path, preprocess: Any) -> torch.Tensor | None:
    image = decode(path)
    if isinstance(image, str):
        return None
    tensor: torch.Tensor = preprocess(image)
    return tensor


def _shard(path: Path) -> pa.RecordBatch:
    return pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)


def _array(features: torch.Tensor) -> pa.Array:
    array = pa.array(features.numpy().reshape(-1))
    for size in reversed(features.shape[1:]):
        array = pa.FixedSizeListArray.from_arrays(array, size)
    return array


def _matrix(array: pa.Array) -> npt.NDArray[Any]:
    shape = [len(array)]
    while pa.types.is_fixed_size_list(array.type):
        shape.append(array.type.list_size)
        array = array.flatten()
    return array.to_numpy().reshape(shape)  # type: ignore[no-any-return]
