"""Labels of captions against images' true objects.

Precision is the share of labels that are objects of the caption's image, and recall the share of
the image's classes that the caption names. People name what matters to them, so recall of one
caption stays far from 1; the captions of an image together name more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

import sql
from tasks.errors import InputError
from tasks.images.coco_instances import read_instances
from tasks.images.names import Names

if TYPE_CHECKING:
    from tasks.labels.vocabulary import Vocabulary


@dataclass(frozen=True)
class Scores:
    """Labels against true objects: of one class, or of all together."""

    label: str
    shown: int
    named: int
    right: int

    @property
    def precision(self) -> float | None:
        """Share of what is named that is there; None if nothing is named."""
        return self.right / self.named if self.named else None

    @property
    def recall(self) -> float | None:
        """Share of what is there that is named; None if nothing is there."""
        return self.right / self.shown if self.shown else None


@dataclass(frozen=True)
class Measured:
    """Scores by class, of captions and of images whose captions are pooled."""

    captions: tuple[Scores, ...]
    images: tuple[Scores, ...]

    def figures(self) -> dict[str, float]:
        """Precision and recall over all classes together."""
        found: dict[str, float] = {}
        for unit, by_class in (("caption", self.captions), ("image", self.images)):
            whole = total(by_class)
            found[f"precision/{unit}"] = whole.precision or 0.0
            found[f"recall/{unit}"] = whole.recall or 0.0
        return found


def true_objects(objects: Path, vocabulary: Vocabulary) -> dict[str, tuple[str, ...]]:
    """The vocabulary's classes by image id of COCO instances; the images need not be here."""
    entries = Names(vocabulary).match(read_instances(objects).entries)
    return {entry.image_id: entry.classes or () for entry in entries}


def total(scores: Sequence[Scores]) -> Scores:
    """All classes together: sums, so that frequent classes count more."""
    sums = [sum(getattr(one, field) for one in scores) for field in ("shown", "named", "right")]
    return Scores("all", *sums)


def against_objects(
    connection: duckdb.DuckDBPyConnection, objects: Mapping[str, Sequence[str]]
) -> Measured:
    """Measure labels against the classes that images show.

    Args:
        connection: holds the views corpus, labels and classes.
        objects: classes by image id; an image that shows nothing has an empty one.

    Raises:
        InputError: no caption is of such an image.

    """
    pairs = [(image, label) for image, labels in objects.items() for label in labels]
    columns = {"image_id": [i for i, _ in pairs], "class": [label for _, label in pairs]}
    schema = pa.schema({name: pa.string() for name in columns})
    connection.register("objects", pa.table(columns, schema=schema))
    connection.register("images", pa.table({"image_id": pa.array(list(objects), pa.string())}))
    rows = connection.execute(sql.query("quality/against_objects")).fetchall()
    measured = Measured(
        tuple(Scores(row[0], *row[1:4]) for row in rows),
        tuple(Scores(row[0], *row[4:7]) for row in rows),
    )
    if not total(measured.captions).shown:
        raise InputError(
            "field 'objects': no caption is of an image that shows a class of the vocabulary; "
            "expected the instances of the captions' own images"
        )
    return measured
