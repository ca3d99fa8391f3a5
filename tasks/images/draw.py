"""Draw stage: the labelled images, and of their labels those, that a protocol lets methods see.

Few shots, partial labels and novel classes come to the same: fewer images, and unknown labels.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.images.features import files_in
from tasks.images.image_sets import ENTRIES, entries_table, read_listing
from tasks.images.labelled import label_matrix
from tasks.images.names import Names
from tasks.images.protocols import Protocol, listed_labels, novel_classes
from tasks.workspace import Result, Stage, digest_of, recipe_of, run_stage

if TYPE_CHECKING:
    from tasks.labels.vocabulary import Vocabulary
    from tasks.profile import Profile

LOG = logging.getLogger("tai")
TOLD: Final = 10


def protocol_of(profile: Profile, vocabulary: Vocabulary) -> Protocol | None:
    """How the profile's labelled images are learned from; None: all that is known of all.

    Raises:
        InputError: a novel class is no class.

    """
    asked = profile.labelled
    if asked is None or (asked.shots is None and asked.known == 1 and not profile.novel):
        return None
    novel = novel_classes(profile.novel, vocabulary.classes) if profile.novel else ()
    return Protocol(asked.shots, asked.known, novel, asked.base, profile.seed)


def check_protocol(profile: Profile, vocabulary: Vocabulary) -> None:
    """See by its list that the labelled image set is enough for the protocol, if the run has one.

    Raises:
        InputError: a class has fewer images than shots are asked for, or a novel one is no class.

    """
    protocol = protocol_of(profile, vocabulary)
    if profile.novel:
        novel_classes(profile.novel, vocabulary.classes)
    if protocol and profile.labelled in profile.image_sets:
        entries = Names(vocabulary).match(read_listing(profile, profile.labelled).entries)
        protocol.draw(label_matrix(entries_table(entries), vocabulary.classes), vocabulary.classes)


@task(name="draw", cache_policy=NO_CACHE, task_run_name="draw")
def draw_labelled(profile: Profile, vocabulary: Vocabulary, listed: Stage, images: Stage) -> Stage:
    """The labelled images and labels to learn from; `listed` itself where those are all.

    An image that could not be read is never drawn. A class of which no positive label is known is
    counted and told.

    Raises:
        InputError: a class has fewer images than shots are asked for.

    """
    protocol = protocol_of(profile, vocabulary)
    if protocol is None:
        return listed
    classes = vocabulary.classes
    files = pa.array(files_in(images), pa.string())

    def work(out: Path) -> Result:
        table = pq.read_table(listed.file(ENTRIES))
        table = table.filter(pc.is_in(table["file"], value_set=files))
        rows, labels = protocol.draw(label_matrix(table, classes), classes)
        drawn = listed_labels(table.take(pa.array(rows.numpy())), labels, classes)
        pq.write_table(drawn, out / ENTRIES, compression="zstd")
        shown = (labels == 1).any(dim=0).tolist()
        lacking = [
            label
            for label, is_shown in zip(classes, shown, strict=True)
            if protocol.learns(label) and not is_shown
        ]
        counts = {
            "images/labelled": table.num_rows,
            "images/drawn": len(rows),
            "labels/shown": int((labels == 1).sum()),
            "labels/not_shown": int((labels == 0).sum()),
            "labels/unknown": int((labels == -1).sum()),
            "classes/without_shown": len(lacking),
        }
        return Result(counts, {"without_shown": lacking})

    recipe = recipe_of(
        "draw",
        __name__,
        inputs={"listed": listed.digest, "files": digest_of(files.to_pylist())},
        parameters={"classes": list(classes), **asdict(protocol), "novel": list(protocol.novel)},
    )
    stage = run_stage(recipe, work)
    if lacking := stage.figures["without_shown"]:
        more = f" and {len(lacking) - TOLD} more" if len(lacking) > TOLD else ""
        LOG.warning(
            "images: labelled: no image is known to show %s%s", ", ".join(lacking[:TOLD]), more
        )
    return stage
