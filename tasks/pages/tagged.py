"""An image set of unknown labels on the report: its tags, thresholds, and where prompts look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import pyarrow.parquet as pq

from models.decisions import FEWEST_IMAGES, TOP
from models.lazily import lazily
from tasks.images.features import open_features
from tasks.pages.heatmaps import heat_maps, thumbnail
from tasks.pages.showcase import MAPPED, TRUE_MAPS, Shown, Tag, dense_of
from tasks.profile import Profile
from tasks.results.outcome import Outcome
from tasks.results.tags import TABLE, TAGS, thresholds_of
from tasks.settings import ImageSet

with lazily():
    import torch

CARDS: Final = 24


def sections(profile: Profile, outcome: Outcome, classes: Sequence[str]) -> list[dict[str, Any]]:
    """What the page says of each image set whose labels are not known."""
    return [_section(profile, each, outcome, classes) for each in profile.unlabelled]


def maps(
    profile: Profile,
    image_set: ImageSet,
    outcome: Outcome,
    classes: Sequence[str],
    vectors: torch.Tensor,
) -> list[Shown]:
    """A few tagged images with a heat map for each of their first tags.

    Args:
        profile: the run's settings.
        image_set: its first image set.
        outcome: its stages.
        classes: names of the C classes.
        vectors: [C, d] local prompts.

    """
    rows = pq.read_table(outcome.tags[image_set.name].file(TAGS)).to_pylist()
    tagged = [number for number, row in enumerate(rows) if row["tags"]]
    chosen = _spread(tagged, MAPPED)
    files = [rows[number]["file"] for number in chosen]
    dense = dense_of(open_features(outcome.images[image_set.name]), files)
    found = []
    for number in chosen:
        file = rows[number]["file"]
        path = profile.place(image_set.folder) / file
        labels = [tag["label"] for tag in rows[number]["tags"][:TRUE_MAPS]]
        picture = thumbnail(path, square=True)
        heated = heat_maps(path, dense[file], vectors[[classes.index(label) for label in labels]])
        if picture and heated:
            of_image = tuple(
                Tag(label, None, heat) for label, heat in zip(labels, heated, strict=True)
            )
            found.append(Shown(file, picture, (), of_image, ()))
    return found


def _section(
    profile: Profile, image_set: ImageSet, outcome: Outcome, classes: Sequence[str]
) -> dict[str, Any]:
    name = image_set.name
    stage, listed = outcome.tags[name], outcome.images[name].counts
    table = pq.read_table(stage.file(TAGS))
    counted = Counter(tag["label"] for tags in table["tags"].to_pylist() for tag in tags)
    rows = [table.slice(at, 1).to_pylist()[0] for at in _spread(range(len(table)), CARDS)]
    thresholds = thresholds_of(stage)
    return {
        "name": name,
        "images": len(table),
        "unread": listed["images/rejected"],
        "untagged": stage.counts["images/untagged"],
        "is_few": len(table) < FEWEST_IMAGES,
        "fewest": FEWEST_IMAGES,
        "top": min(TOP, len(classes)),
        "captions": outcome.rate.counts["captions"] if outcome.rate else 0,
        "by_class": [
            {"label": label, "threshold": thresholds.get(label), "images": counted[label]}
            for label in sorted(classes, key=lambda label: -counted[label])
        ],
        "table": str(stage.file(TABLE)),
        "cards": [
            {**row, "picture": thumbnail(profile.place(image_set.folder) / row["file"])}
            for row in rows
        ],
    }


def _spread(numbers: Sequence[int], most: int) -> list[int]:
    """At most so many of the numbers, evenly from first to last: no choice by score."""
    count = min(most, len(numbers))
    return [numbers[round(at * (len(numbers) - 1) / max(count - 1, 1))] for at in range(count)]
