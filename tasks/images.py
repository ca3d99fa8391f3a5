"""Images stage: every image of a set through the frozen tower once."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from tasks.backbone import LoadedBackbone
from tasks.errors import InputError
from tasks.image_sets import ImageEntry
from tasks.progress import Progress

LOG = logging.getLogger("tai")
CODE: Final = (
    "tasks/images.py",
    "tasks/image_sets.py",
    "tasks/backbone.py",
    "models/backbone.py",
)
IMAGES: Final = "images.parquet"
REJECTS: Final = "rejects.parquet"
FEATURES: Final = ("pooled", "pooled_plain", "dense")
IMAGES_PER_BATCH: Final = 16
IMAGES_PER_SHARD: Final = 1024
LARGEST_PIXELS: Final = 100_000_000


def write_image_features(
    entries: Sequence[ImageEntry], folder: Path, loaded: LoadedBackbone, out: Path
) -> tuple[dict[str, int], dict[str, Any]]:
    """Encode images into fp16 shards under `out`; an image that cannot be read is listed apart.

    Returns:
        Counts images/read = images/kept + images/rejected, and figures.

    Raises:
        InputError: no image at all can be read.

    """
    shards = [
        entries[start : start + IMAGES_PER_SHARD]
        for start in range(0, len(entries), IMAGES_PER_SHARD)
    ]
    paths = [out / f"shard-{number:05d}.arrow" for number in range(len(shards))]
    done = sum(len(s) for s, path in zip(shards, paths, strict=True) if path.is_file())
    progress = Progress("images", len(entries), "images", done)
    for shard, path in zip(shards, paths, strict=True):
        if not path.is_file():
            unfinished = path.with_suffix(".part")
            _write_shard(unfinished, shard, folder, loaded, progress)
            unfinished.rename(path)
    kept = {row for path in paths for row in _shard(path)["file"].to_pylist()}
    good = [entry for entry in entries if entry.file in kept]
    bad = [
        {"file": entry.file, "reason": str(_problem(folder / entry.file))}
        for entry in entries
        if entry.file not in kept
    ]
    if not good:
        raise InputError(f"{folder / bad[0]['file']}: {bad[0]['reason']}; no image could be read")
    for row in bad:
        LOG.warning("images: %s left out: %s", row["file"], row["reason"])
    reject_schema = pa.schema({"file": pa.string(), "reason": pa.string()})
    pq.write_table(pa.Table.from_pylist(bad, schema=reject_schema), out / REJECTS)
    pq.write_table(
        pa.table(
            {
                "image_id": [entry.image_id for entry in good],
                "file": [entry.file for entry in good],
                "classes": pa.array([e.classes for e in good], pa.list_(pa.string())),
                "ignored": pa.array([e.ignored for e in good], pa.list_(pa.string())),
            }
        ),
        out / IMAGES,
    )
    counts = {"images/read": len(entries), "images/kept": len(good), "images/rejected": len(bad)}
    return counts, {"images_per_s": round(progress.rate, 2)}


def feature_batches(folder: Path) -> Iterator[dict[str, torch.Tensor]]:
    """Features of a finished stage by shard: pooled, pooled_plain [B, d], dense [B, N, d]."""
    for path in sorted(folder.glob("shard-*.arrow")):
        batch = _shard(path)
        yield {name: _tensor(batch[name]) for name in FEATURES}


def _write_shard(
    path: Path,
    entries: Sequence[ImageEntry],
    folder: Path,
    loaded: LoadedBackbone,
    progress: Progress,
) -> None:
    found: dict[str, list[torch.Tensor]] = {name: [] for name in FEATURES}
    files: list[str] = []
    decoded = _decoded_ahead(entries, folder, loaded)
    while group := list(islice(decoded, IMAGES_PER_BATCH)):
        whole = [(entry, image) for entry, image in group if image is not None]
        if whole:
            batch = torch.stack([image for _, image in whole])
            batch = batch.to(loaded.backbone.device, memory_format=torch.channels_last)
            with torch.inference_mode():
                features = loaded.backbone.encode_images(batch)
            for name in FEATURES:
                found[name].append(getattr(features, name).half().cpu())
            files += [entry.file for entry, _ in whole]
        progress.add(len(group))
    columns = {"file": pa.array(files, pa.string())}
    for name in FEATURES:
        columns[name] = _array(torch.cat(found[name])) if files else pa.nulls(0)
    rows = pa.record_batch(columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_batch(rows)


def _decoded_ahead(
    entries: Sequence[ImageEntry], folder: Path, loaded: LoadedBackbone
) -> Iterator[tuple[ImageEntry, torch.Tensor | None]]:
    """Images as tensors in order, decoded by threads a few batches before they are needed."""
    with ThreadPoolExecutor() as pool:
        waiting: list[tuple[ImageEntry, Future[torch.Tensor | None]]] = []
        for entry in entries:
            waiting.append((entry, pool.submit(_decode, folder / entry.file, loaded.preprocess)))
            if len(waiting) > 4 * IMAGES_PER_BATCH:
                first, future = waiting.pop(0)
                yield first, future.result()
        for entry, future in waiting:
            yield entry, future.result()


def _decode(path: Path, preprocess: Any) -> torch.Tensor | None:
    if _problem(path):
        return None
    with Image.open(path) as image:
        tensor: torch.Tensor = preprocess(image)
    return tensor


def _problem(path: Path) -> str | None:
    """Why a file is no image that can be used, or None."""
    if not path.is_file():
        return "no such file"
    try:
        with warnings.catch_warnings():
            # the size is checked here, on the header alone
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.width * image.height > LARGEST_PIXELS:
                    return f"{image.width} x {image.height} pixels, more than {LARGEST_PIXELS:,}"
                image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"not a whole image: {error}".replace(str(path), path.name)
    return None


def _shard(path: Path) -> pa.RecordBatch:
    return pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)


def _array(features: torch.Tensor) -> pa.Array:
    array = pa.array(features.numpy().reshape(-1))
    for size in reversed(features.shape[1:]):
        array = pa.FixedSizeListArray.from_arrays(array, size)
    return array


def _tensor(array: pa.Array) -> torch.Tensor:
    shape = [len(array)]
    while pa.types.is_fixed_size_list(array.type):
        shape.append(array.type.list_size)
        array = array.flatten()
    return torch.from_numpy(np.array(array.to_numpy()).reshape(shape))
