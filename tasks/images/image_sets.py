"""Image-set stage: which images a set has, and what each shows, as one Parquet file."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.errors import InputError
from tasks.images.annotations import read_image_set
from tasks.images.entries import ImageEntry, Listing
from tasks.images.folders import passed_over_told
from tasks.images.names import Names
from tasks.places import Place
from tasks.workspace import Result, Stage, digest_of, recipe_of, run_stage

if TYPE_CHECKING:
    from tasks.labels.vocabulary import Vocabulary
    from tasks.profile import Profile
    from tasks.settings import ImageSet

LOG = logging.getLogger("tai")
ENTRIES: Final = "entries.parquet"
SCHEMA: Final = pa.schema(
    {
        "image_id": pa.string(),
        "file": pa.string(),
        "classes": pa.list_(pa.string()),
        "ignored": pa.list_(pa.string()),
    }
)


@task(name="image set", cache_policy=NO_CACHE, task_run_name="image set {image_set.name}")
def list_images(profile: Profile, vocabulary: Vocabulary, image_set: ImageSet) -> Stage:
    """Which images an image set has, and what each shows, by the vocabulary's names.

    An annotation that is of no image or no category is left out, counted and told.
    """
    listing, names = read_listing(profile, image_set), Names(vocabulary)
    entries = names.match(listing.entries)
    told = names.told()
    if listing.strays:
        first, count = listing.strays[0], len(listing.strays)
        told.append(f"{count:,} of its annotations are of no use and left out; the first: {first}")
    passed_over = sum(listing.passed_over.values())
    if passed_over:
        told.append(f"passed over, as no images: {passed_over_told(listing.passed_over)}")
    for sentence in told:
        LOG.warning("images: %s: %s", image_set.name, sentence)

    check_shown(image_set, entries, vocabulary)

    def work(out: Path) -> Result:
        strays = {"annotations/stray": len(listing.strays), "files/passed_over": passed_over}
        figures = {"names/taken": names.taken, "names/foreign": sorted(names.foreign)}
        return Result(write_entries(entries, out) | strays, figures)

    recipe = recipe_of(
        "image-set",
        __name__,
        inputs={"entries": digest_of([names.taken, names.foreign, *map(astuple, entries)])},
        parameters={
            "name": image_set.name,
            "strays": len(listing.strays),
            "passed_over": passed_over,
        },
    )
    return run_stage(recipe, work)


def check_shown(image_set: ImageSet, entries: Sequence[ImageEntry], vocabulary: Vocabulary) -> None:
    """InputError if a set of known labels shows no class of the vocabulary at all."""
    if not image_set.labels_known:
        return
    shown = {name for entry in entries for name in entry.classes or ()}
    if not shown:
        raise InputError(
            f"{image_set.annotations}: no image has a class, so there is nothing to measure; "
            'leave `annotations` out of images whose labels are not known (form = "folder")'
        )
    if not shown & set(vocabulary.classes):
        raise InputError(
            f"{image_set.annotations}: no image shows any class of vocabulary "
            f"'{vocabulary.name}'; expected classes named as {', '.join(vocabulary.classes[:5])}, "
            f"the annotations name {', '.join(sorted(shown)[:5])}"
        )


def read_listing(profile: Profile, image_set: ImageSet) -> Listing:
    """The images of one of the profile's image sets, read from its lists or found in its folder.

    Raises:
        InputError: a list or the folder is missing or broken.

    """
    form, folder = image_set.form, profile.place(image_set.folder)
    if image_set.annotations is None:
        return read_image_set(form, None, folder)
    lists = profile.path(image_set.annotations)
    changed = lists.stat().st_mtime_ns if lists.is_file() else 0
    return _listed(form, lists, folder, changed)


@functools.cache
def _listed(form: str, lists: Path, folder: Place, changed: int) -> Listing:
    """A set's images by its lists as they were at `changed`; read once in a process."""
    return read_image_set(form, lists, folder)


def entries_table(entries: Sequence[ImageEntry]) -> pa.Table:
    """A row per image, in their order."""
    columns = {
        field.name: pa.array([getattr(entry, field.name) for entry in entries], field.type)
        for field in SCHEMA
    }
    return pa.table(columns, schema=SCHEMA)


def write_entries(entries: Sequence[ImageEntry], out: Path) -> dict[str, int]:
    """Write a set's images, in their order, as Parquet; returns counts."""
    pq.write_table(entries_table(entries), out / ENTRIES, compression="zstd")
    return {
        "images/listed": len(entries),
        "images/without_class": sum(entry.classes == () for entry in entries),
        "images/not_known": sum(entry.classes is None for entry in entries),
        "labels": sum(len(entry.classes or ()) for entry in entries),
        "labels/ignored": sum(len(entry.ignored) for entry in entries),
    }
