"""Narrow stage: an image set as novel classes are evaluated on it, theirs being all the labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow.compute as pc
import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.errors import InputError
from tasks.images.image_sets import ENTRIES
from tasks.images.labelled import label_matrix
from tasks.images.protocols import listed_labels, novel_classes
from tasks.workspace import Result, Stage, recipe_of, run_stage

if TYPE_CHECKING:
    from tasks.labels.vocabulary import Vocabulary
    from tasks.profile import Profile

EVERY: Final = "every.parquet"
"""All images of the set, beside those of `ENTRIES` that show a novel class."""


@task(name="narrow", cache_policy=NO_CACHE, task_run_name="narrow")
def narrow(profile: Profile, vocabulary: Vocabulary, listed: Stage) -> Stage:
    """The images that show a novel class, and what they show of such; `listed` if none is novel.

    Raises:
        InputError: a novel class is no class, or no image shows any.

    """
    if not profile.novel:
        return listed
    novel = novel_classes(profile.novel, vocabulary.classes)

    def work(out: Path) -> Result:
        table = pq.read_table(listed.file(ENTRIES))
        every = listed_labels(table, label_matrix(table, novel), novel)
        shows = pc.greater(pc.list_value_length(every["classes"]), 0)
        showing = every.filter(shows)
        if not showing.num_rows:
            name = listed.manifest["parameters"]["name"]
            raise InputError(f"{name}: no image shows a novel class, such as {novel[0]!r}")
        pq.write_table(every, out / EVERY, compression="zstd")
        pq.write_table(showing, out / ENTRIES, compression="zstd")
        counts = {
            "images/every": every.num_rows,
            "images/listed": showing.num_rows,
            "labels": int((label_matrix(showing, novel) == 1).sum()),
        }
        return Result(counts, {})

    # what comes of it is an image set too
    recipe = recipe_of(
        "image-set",
        __name__,
        inputs={"listed": listed.digest},
        parameters={"name": listed.manifest["parameters"]["name"], "novel": list(novel)},
    )
    return run_stage(recipe, work)
