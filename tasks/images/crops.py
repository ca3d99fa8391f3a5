"""Random crops of labelled images, as few-shot methods look at their few (Tip-Adapter, ECCV 2022).

Each view is a part of half the image's area or more, of a ratio of sides from 3:4 to 4:3, turned
left to right half of the time, and resized to what the tower sees. What is cut is drawn from the
seed, the view's number and the image's own pixels, so a view is the same whoever asks for it, and
its features are stored like any image's.
"""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow.parquet as pq
from PIL import Image, ImageOps
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.images.encode import FeatureEncoder, encode_pictures
from tasks.images.features import files_in
from tasks.images.image_sets import ENTRIES
from tasks.images.parts import Encode, pictures_of

if TYPE_CHECKING:
    from tasks.profile import Profile
    from tasks.settings import ImageSet
    from tasks.workspace import Stage

LEAST_AREA: Final = 0.5
MOST_RATIO: Final = 4 / 3
TRIES: Final = 10


@dataclass(frozen=True)
class CropEncoder(FeatureEncoder):
    """The frozen tower of a profile on one random crop of each image."""

    view: int = 0
    modules: tuple[str, ...] = (FeatureEncoder.__module__, __name__)

    def parameters(self) -> dict[str, Any]:
        """See `Encoder`."""
        return super().parameters() | {"view": self.view, "seed": self.profile.seed}

    def load(self) -> tuple[Any, Encode]:
        """See `Encoder`."""
        preprocess, encode = super().load()

        def cropped(image: Image.Image) -> Any:
            return preprocess(crop(image, self.view, self.profile.seed))

        return cropped, encode


def crop(image: Image.Image, view: int, seed: int) -> Image.Image:
    """A square picture of a random part of an image, the same for the same pixels."""
    pixels = image.convert("RGB")
    drawn = random.Random(hashlib.sha256(f"{seed} {view} ".encode() + pixels.tobytes()).digest())  # noqa: S311
    part = pixels.crop(_box(*pixels.size, drawn))
    if drawn.random() < 0.5:
        part = ImageOps.mirror(part)
    side = max(part.size)
    return part.resize((side, side), Image.Resampling.BICUBIC)


def _box(width: int, height: int, drawn: random.Random) -> tuple[int, int, int, int]:
    """A part's corners; after some tries that lie outside, the largest middle of a fit ratio."""
    limit = math.log(MOST_RATIO)
    for _ in range(TRIES):
        area = width * height * drawn.uniform(LEAST_AREA, 1)
        ratio = math.exp(drawn.uniform(-limit, limit))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left, top = drawn.randint(0, width - wide), drawn.randint(0, height - high)
            return left, top, left + wide, top + high
    wide = min(width, max(1, int(height * MOST_RATIO)))
    high = min(height, max(1, int(width * MOST_RATIO)))
    left, top = (width - wide) // 2, (height - high) // 2
    return left, top, left + wide, top + high


@task(name="crops", cache_policy=NO_CACHE, task_run_name="crops {image_set.name}")
def encode_crops(
    profile: Profile, image_set: ImageSet, drawn: Stage, images: Stage, views: int
) -> tuple[Stage, ...]:
    """Features of so many random crops of each drawn image that could be read."""
    if not views:
        return ()
    listed = set(pq.read_table(drawn.file(ENTRIES), columns=["file"])["file"].to_pylist())
    files = [file for file in files_in(images) if file in listed]
    pictures = pictures_of(profile.place(image_set.folder), files)
    return tuple(
        encode_pictures(profile, pictures, CropEncoder(profile, view=view)) for view in range(views)
    )
