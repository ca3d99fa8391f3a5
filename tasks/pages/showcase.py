"""Images for the report: the best and worst understood with their tags, and where prompts look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from models.lazily import lazily
from models.metrics import average_precisions
from tasks.images.features import StoredFeatures
from tasks.pages.heatmaps import heat_maps, thumbnail
from tasks.places import Place

with lazily():
    import torch

CARDS: Final = 6
FEWEST_TAGS: Final = 3
MAPPED: Final = 4
TRUE_MAPS: Final = 3


@dataclass(frozen=True)
class Tag:
    """A class that an image was given."""

    label: str
    right: bool | None
    """None where nobody has told."""
    picture: str | None = None
    """Data URI of its heat map, where there is one."""


@dataclass(frozen=True)
class Shown:
    """One image of the report."""

    file: str
    picture: str | None
    """Data URI; None if the file can be read no more."""
    shown: tuple[str, ...]
    tags: tuple[Tag, ...]
    missed: tuple[str, ...]


@dataclass(frozen=True)
class Scored:
    """An image set's scores by one method, as the report looks at them."""

    folder: Place
    table: pa.Table
    """Rows with file, classes, merged."""
    classes: tuple[str, ...]
    scores: torch.Tensor
    """[N, C] merged scores."""
    labels: torch.Tensor
    """[N, C] 1, 0 or -1."""

    def understood(self) -> list[int]:
        """Rows of images that show a class, best first by AP of their own ranking of classes."""
        per_image = average_precisions(self.scores.T, self.labels.T)
        # among equals, those that show most come first: they are harder
        shown = (self.labels == 1).sum(dim=1)
        rows = [row for row in range(len(shown)) if shown[row]]
        return sorted(rows, key=lambda row: (-float(per_image[row]), -int(shown[row]), row))


def cards(scored: Scored, rows: Sequence[int]) -> list[Shown]:
    """Images with their highest classes: as many as they show, and at least three."""
    return [_shown(scored, row, square=False) for row in rows]


def maps(scored: Scored, features: StoredFeatures, prompts: torch.Tensor) -> list[Shown]:
    """Images that show several classes, with a heat map per class (TaI-DPT's Figure 4).

    Args:
        scored: the image set's scores.
        features: of the whole set.
        prompts: [C, d] local prompts.

    """
    several = [row for row in scored.understood() if int((scored.labels[row] == 1).sum()) > 1]
    # three that are understood well and one from the middle: not the cherries alone
    rows = [*several[: MAPPED - 1], *several[len(several) // 2 :][:1]]
    rows = list(dict.fromkeys(rows or scored.understood()[:MAPPED]))
    dense = dense_of(features, [scored.table["file"][row].as_py() for row in rows])
    found = []
    for row in rows:
        image = _shown(scored, row, square=True)
        true = (scored.labels[row] == 1).nonzero().flatten().tolist()
        wrong = [c for c in scored.scores[row].argsort(descending=True).tolist() if c not in true]
        path = scored.folder / image.file
        mapped = [*true[:TRUE_MAPS], wrong[0]] if wrong else true[:TRUE_MAPS]
        heated = heat_maps(path, dense[image.file], prompts[mapped])
        if image.picture and heated:
            of_image = tuple(
                Tag(scored.classes[c], c in true, picture)
                for c, picture in zip(mapped, heated, strict=True)
            )
            found.append(Shown(image.file, image.picture, image.shown, of_image, ()))
    return found


def _shown(scored: Scored, row: int, *, square: bool) -> Shown:
    true = {c for c, mark in enumerate(scored.labels[row].tolist()) if mark == 1}
    ignored = {c for c, mark in enumerate(scored.labels[row].tolist()) if mark == -1}
    ranked = [c for c in scored.scores[row].argsort(descending=True).tolist() if c not in ignored]
    given = ranked[: max(FEWEST_TAGS, len(true))]
    file = scored.table["file"][row].as_py()
    return Shown(
        file=file,
        picture=thumbnail(scored.folder / file, square=square),
        shown=tuple(scored.classes[c] for c in sorted(true)),
        tags=tuple(Tag(scored.classes[c], c in true) for c in given),
        missed=tuple(scored.classes[c] for c in sorted(true - set(given))),
    )


def dense_of(features: StoredFeatures, files: Sequence[str]) -> dict[str, torch.Tensor]:
    """Dense features [N, d] of some images by file, as float32."""
    if not files:
        return {}
    rows = np.array([features.files.index(file) for file in files])
    return dict(zip(files, features.take(rows).to("cpu").dense, strict=True))
