"""The page of a folder's tags: written again every few seconds until all is done."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from tasks import pages
from tasks.pages.heatmaps import thumbnail
from tasks.workspace import write_whole

CARDS: Final = 120
LISTED: Final = 500
"""Files that cannot be read, or are passed over, that a page names."""
REFRESH_S: Final = 3.0
SIDE: Final = 160
TABLES: Final = {"tags": "tags.csv", "rejects": "rejects.csv", "others": "passed_over.csv"}


@dataclass
class Gallery:
    """Tags of a folder, as far as they are there."""

    path: Path
    folder: Path
    total: int
    about: Mapping[str, Any]
    """The model (`address`, `alias`, `run`, `method`, `summary`, `backbone`, `weights`, `random`),
    and the command `review`."""
    told: str | None = None
    """How images are tagged; None while tags are but for now."""
    others: Mapping[str, str] = field(default_factory=dict)
    """Why what else lies there is passed over, by file."""
    pictures: dict[str, str | None] = field(default_factory=dict)
    cards: list[dict[str, Any]] = field(default_factory=list)
    rejects: list[dict[str, Any]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    rejected: int = 0
    untagged: int = 0
    done: int = 0
    written: float = 0.0

    def anew(self, told: str, others: Mapping[str, str]) -> Gallery:
        """The page of what is decided for good; pictures are kept."""
        return Gallery(self.path, self.folder, self.total, self.about, told, others, self.pictures)

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Show some more rows: `file`, `tags` and `nearest`, or the `reason` why there are none."""
        for row in rows:
            self.done += 1
            if row["reason"] is not None:
                self.rejected += 1
                if len(self.rejects) < LISTED:
                    self.rejects.append(dict(row))
                continue
            self.counts.update(tag["label"] for tag in row["tags"])
            self.untagged += not row["tags"]
            if len(self.cards) < CARDS:
                self.cards.append(dict(row) | {"picture": self._picture(row["file"])})
        is_whole = self.told is not None and self.done == self.total
        is_due = self.told is None and time.monotonic() - self.written > REFRESH_S
        if is_whole or is_due:
            write_whole(self.path, self.render())
            self.written = time.monotonic()

    def render(self) -> str:
        """The page as it stands."""
        places = {label: number for number, label in enumerate(self._labels())}
        cards = [
            card
            | {
                "link": link(self.folder / card["file"], self.path.parent),
                "kinds": " ".join(f"c{places[tag['label']]}" for tag in card["tags"]),
            }
            for card in self.cards
        ]
        return pages.render(
            "gallery.html",
            folder=self.folder.name,
            total=self.total,
            done=self.done,
            refresh=round(REFRESH_S) if self.told is None else 0,
            about=self.about,
            told=self.told,
            cards=cards,
            counts=self.counts.most_common(),
            places=places,
            untagged=self.untagged,
            rejected=self.rejected,
            rejects=self.rejects,
            passed_over=len(self.others),
            others=list(islice(self.others.items(), LISTED)),
            tables=TABLES,
        )

    def _labels(self) -> list[str]:
        """Classes that a card shows, in the order of their counts."""
        shown = {tag["label"] for card in self.cards for tag in card["tags"]}
        return [label for label, _ in self.counts.most_common() if label in shown]

    def _picture(self, file: str) -> str | None:
        if file not in self.pictures:
            self.pictures[file] = thumbnail(self.folder / file, side=SIDE)
        return self.pictures[file]


def link(picture: Path, page: Path) -> str:
    """Relative address of a picture from a folder, which holds when both are moved together."""
    relative = os.path.relpath(os.path.realpath(picture.parent), os.path.realpath(page))
    return quote(Path(relative, picture.name).as_posix())
