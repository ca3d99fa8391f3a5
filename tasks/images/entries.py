"""What an image set's lists say: its images, and what each shows."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ImageEntry:
    """One image of a set and what it shows."""

    image_id: str
    file: str
    """Path relative to the image folder, with forward slashes."""
    classes: tuple[str, ...] | None
    """None where nobody has said what it shows."""
    ignored: tuple[str, ...] = ()
    """Classes that count as neither shown nor not shown."""


@dataclass(frozen=True)
class Listing:
    """The images of a set in its list's order, and annotations that are of none of them."""

    entries: list[ImageEntry]
    strays: tuple[str, ...] = ()
    """A sentence on each: its position, the field, and what stands there."""
    passed_over: Mapping[str, int] = field(default_factory=dict)
    """How many other files a folder without a list has, by suffix."""
    others: Mapping[str, str] = field(default_factory=dict)
    """Why each of them is passed over, by path."""
