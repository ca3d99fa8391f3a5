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
from tasks.progress import Progress

LOG = logging.getLogger("tai")
CODE: Final = ("tasks/images.py", "tasks/backbone.py", "models/backbone.py")
IMAGES: Final = "images.parquet"
REJECTS: Final = "rejects.parquet"
FEATURES: Final = ("pooled", "pooled_plain", "dense")
IMAGES_PER_BATCH: Final = 16
IMAGES_PER_SHARD: Final = 1024
LARGEST_PIXELS: Final = 100_000_000


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
    done = sum(len(s) for s, path in zip(shards, paths, strict=True) if path.is_file())
    progress = Progress("images", len(files), "images", done)
    for shard, path in zip(shards, paths, strict=True):
        if not path.is_file():
            unfinished = path.with_suffix(".part")
            _write_shard(unfinished, shard, folder, loaded, progress)
            unfinished.rename(path)
    kept = [file for path in paths for file in _shard(path)["file"].to_pylist()]
    bad = [
        {"file": file, "reason": str(_problem(folder / file))}
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


def feature_batches(folder: Path) -> Iterator[dict[str, torch.Tensor]]:
    """Features of a finished stage by shard: pooled, pooled_plain [B, d], dense [B, N, d]."""
    for path in sorted(folder.glob("shard-*.arrow")):
        batch = _shard(path)
        yield {name: _tensor(batch[name]) for name in FEATURES}


def _write_shard(
    path: Path,
    shard: Sequence[str],
    folder: Path,
    loaded: LoadedBackbone,
    progress: Progress,
) -> None:
    found: dict[str, list[torch.Tensor]] = {name: [] for name in FEATURES}
    files: list[str] = []
    decoded = _decoded_ahead(shard, folder, loaded)
    while group := list(islice(decoded, IMAGES_PER_BATCH)):
        whole = [(file, image) for file, image in group if image is not None]
        if whole:
            batch = torch.stack([image for _, image in whole])
            batch = batch.to(loaded.backbone.device, memory_format=torch.channels_last)
            with torch.inference_mode():
                features = loaded.backbone.encode_images(batch)
            for name in FEATURES:
                found[name].append(getattr(features, name).half().cpu())
            files += [file for file, _ in whole]
        progress.add(len(group))
    columns = {"file": pa.array(files, pa.string())}
    for name in FEATURES:
        columns[name] = _array(torch.cat(found[name])) if files else pa.nulls(0)
    rows = pa.record_batch(columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_batch(rows)


def _decoded_ahead(
    files: Sequence[str], folder: Path, loaded: LoadedBackbone
) -> Iterator[tuple[str, torch.Tensor | None]]:
    """Images as tensors in order, decoded by threads a few batches before they are needed."""
    with ThreadPoolExecutor() as pool:
        waiting: list[tuple[str, Future[torch.Tensor | None]]] = []
        for file in files:
            waiting.append((file, pool.submit(_decode, folder / file, loaded.preprocess)))
            if len(waiting) > 4 * IMAGES_PER_BATCH:
                first, future = waiting.pop(0)
                yield first, future.result()
        for file, future in waiting:
            yield file, future.result()


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
