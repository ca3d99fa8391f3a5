"""Pairs stage: moments of captions' and images' vectors, where pictures have captions of their own.

pairs.safetensors    the fields of `models.adapters.Pairs`, float64
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from prefect import task
from prefect.cache_policies import NO_CACHE

from models.lazily import lazily
from tasks.backbone.devices import device_of
from tasks.backbone.loading import identity_of, load
from tasks.captions.sentences import vectors_of
from tasks.contents import source_sha256
from tasks.corpus.references import read_references
from tasks.images.encode import encode_pictures
from tasks.images.features import files_in, open_features
from tasks.images.parts import pictures_of
from tasks.progress import Progress
from tasks.workspace import Result, Stage, recipe_of, run_stage

with lazily():
    from safetensors.torch import load_file, save_file

    from models.adapters import Pairs, pairs_of

if TYPE_CHECKING:
    import torch

    from tasks.profile import Profile
    from tasks.settings import PairedImages

PAIRS: Final = "pairs.safetensors"
IMAGES_AT_ONCE: Final = 1024


def check_paired(profile: Profile) -> None:
    """Look at the captions of paired pictures, if a method of the run asks for any."""
    for name in profile.run:
        if profile.method(name).wants_pairs():
            read_references(profile.path(_paired(profile).captions))
            return


@task(name="pairs", cache_policy=NO_CACHE, task_run_name="pairs")
def encode_pairs(profile: Profile) -> Stage:
    """Moments of the profile's paired pictures and their captions.

    Raises:
        InputError: no picture that captions name can be read.

    """
    paired = _paired(profile)
    path = profile.path(paired.captions)
    captions = read_references(path)
    images = encode_pictures(profile, pictures_of(profile.place(paired.folder), sorted(captions)))
    known = files_in(images)

    def work(out: Path) -> Result:
        progress = Progress("pairs", len(known), "images")

        def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            stored = open_features(images)
            for start in range(0, len(known), IMAGES_AT_ONCE):
                files = known[start : start + IMAGES_AT_ONCE]
                pooled = stored.take(np.arange(start, start + len(files))).pooled.float()
                rows = [row for row, file in enumerate(files) for _ in captions[file]]
                texts = [text for file in files for text in captions[file]]
                yield vectors_of(texts, load(profile).backbone), pooled[rows]
                progress.add(len(files))

        pairs = pairs_of(batches())
        save_file({name: value.contiguous() for name, value in vars(pairs).items()}, out / PAIRS)
        return Result({"pairs": int(pairs.count), "images": len(known)}, {})

    recipe = recipe_of(
        "pairs",
        __name__,
        inputs={
            "captions": source_sha256(path),
            "images": images.digest,
            "backbone": identity_of(profile),
        },
        parameters={"device": device_of(profile)},
    )
    return run_stage(recipe, work)


def read_pairs(pairs: Stage) -> Pairs:
    """The moments of a pairs stage."""
    return Pairs(**load_file(pairs.file(PAIRS)))


def _paired(profile: Profile) -> PairedImages:
    if profile.paired is None:
        raise ValueError(f"profile {profile.name} has no pairs")
    return profile.paired
