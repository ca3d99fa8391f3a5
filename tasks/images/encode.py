"""Images stage: every image of a set through the frozen tower, once, in partitions.

A partition (`tasks.images.parts`) holds features as fp16 by the names in `FEATURES`. The stage of a
set says which of its images have features, and by their digests which.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE

from models.lazily import lazily
from tasks.backbone.devices import device_of
from tasks.backbone.loading import LoadedBackbone, identity_of, load
from tasks.errors import InputError
from tasks.images.decode import decode
from tasks.images.features import FEATURES, IMAGES, PARTS, REJECTS, STAGE
from tasks.images.image_sets import ENTRIES
from tasks.images.parts import Encode, Pictures, parts_of, pictures_of
from tasks.images.stored import CONTENTS, SCHEMA
from tasks.workspace import Result, Stage, digest_of, digests_of, recipe_of, run_stage

with lazily():
    import torch


if TYPE_CHECKING:
    from tasks.profile import Profile
    from tasks.settings import ImageSet

LOG = logging.getLogger("tai")


@dataclass(frozen=True)
class FeatureEncoder:
    """The frozen tower of a profile."""

    profile: Profile
    stage: str = STAGE
    modules: tuple[str, ...] = (__name__,)

    def inputs(self) -> dict[str, str]:
        """See `Encoder`."""
        return {"backbone": identity_of(self.profile)}

    def parameters(self) -> dict[str, Any]:
        """See `Encoder`."""
        return {"device": device_of(self.profile)}

    def load(self) -> tuple[Any, Encode]:
        """See `Encoder`."""
        return tower_of(load(self.profile))


def tower_of(loaded: LoadedBackbone) -> tuple[Any, Encode]:
    """How a CLIP's images are prepared, and their features, as float16 by name."""
    backbone = loaded.backbone

    def encode(images: torch.Tensor) -> Mapping[str, torch.Tensor]:
        images = images.to(backbone.device, memory_format=torch.channels_last)
        with torch.inference_mode():
            features = backbone.encode_images(images)
        return {name: getattr(features, name).half().cpu() for name in FEATURES}

    return loaded.preprocess, encode


@task(name="images", cache_policy=NO_CACHE, task_run_name="images {image_set.name}")
def encode_images(profile: Profile, image_set: ImageSet, listed: Stage) -> Stage:
    """Global and dense features of an image set, whatever its images show."""
    return encode_pictures(profile, listed_pictures(profile, image_set, listed))


def listed_pictures(profile: Profile, image_set: ImageSet, listed: Stage) -> Pictures:
    """The images of a set, by their contents."""
    files = pq.read_table(listed.file(ENTRIES), columns=["file"])["file"].to_pylist()
    return pictures_of(profile.place(image_set.folder), files)


def encode_pictures(
    profile: Profile, pictures: Pictures, encoder: FeatureEncoder | None = None
) -> Stage:
    """Global and dense features of pictures; those that are stored are not encoded again.

    Args:
        profile: names the frozen tower.
        pictures: files of a folder.
        encoder: how they are looked at; by default as they are.

    Raises:
        InputError: no image at all can be read.

    """
    encoder = encoder or FeatureEncoder(profile)
    parts = parts_of(encoder, pictures)

    def work(out: Path) -> Result:
        counts = write_index(pictures, [part.file(CONTENTS) for part in parts], out)
        return Result(counts, {PARTS: [part.key for part in parts]})

    contents = dict(zip(pictures.files, pictures.contents, strict=True))
    recipe = recipe_of(
        "images",
        __name__,
        inputs={
            "images": digest_of([list(pictures.files), contents]),
            "features": digests_of(parts),
            **encoder.inputs(),
        },
        parameters=encoder.parameters(),
    )
    return run_stage(recipe, work)


def write_index(pictures: Pictures, parts: Sequence[Path], out: Path) -> dict[str, int]:
    """Which pictures have features, and by which digest; one that cannot be read is listed apart.

    Returns:
        Counts images/read = images/kept + images/rejected.

    Raises:
        InputError: no image at all can be read.

    """
    columns = ["content", "digest"]
    tables = [pq.read_table(path, columns=columns) for path in parts]
    stored = pa.concat_tables([SCHEMA.empty_table().select(columns), *tables])
    row = pc.index_in(pa.array(pictures.contents, pa.string()), value_set=stored["content"])
    table = pa.table({"file": list(pictures.files), "digest": stored["digest"].take(row)})
    kept = table.filter(pc.is_valid(table["digest"]))
    rejected = sorted(table.filter(pc.is_null(table["digest"]))["file"].to_pylist())
    bad = [{"file": file, "reason": str(decode(pictures.folder / file))} for file in rejected]
    if not kept.num_rows:
        first = pictures.folder / bad[0]["file"]
        raise InputError(f"{first}: {bad[0]['reason']}; no image could be read")
    for row in bad:
        LOG.warning("images: %s left out: %s", row["file"], row["reason"])
    reject_schema = pa.schema({"file": pa.string(), "reason": pa.string()})
    pq.write_table(pa.Table.from_pylist(bad, schema=reject_schema), out / REJECTS)
    pq.write_table(kept, out / IMAGES)
    return {
        "images/read": len(pictures.files),
        "images/kept": kept.num_rows,
        "images/rejected": len(bad),
    }
