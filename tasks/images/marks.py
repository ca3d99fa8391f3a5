"""A CSV with a row per image and a column per class: shown, not shown, or not known."""

from pathlib import Path
from typing import Final

from tasks.errors import InputError
from tasks.images.entries import ImageEntry, Listing
from tasks.images.lists import image_file, read_table

SHOWN: Final = frozenset({"1", "1.0", "true", "yes", "y", "x", "+"})
ABSENT: Final = frozenset({"0", "0.0", "false", "no", "n", "-"})
UNKNOWN: Final = frozenset(
    {"", "-1", "-1.0", "?", "unknown", "nan", "na", "n/a", "<na>", "none", "null"}
)


def read_marks(table: Path, header: list[str]) -> Listing:
    """The images of a CSV with the columns `file` and a class each.

    Raises:
        InputError: a cell is no mark, a class has two columns, or an image two rows.

    """
    # a column without a name is the row's number, as pandas writes it
    classes = [name for name in header if name and name.lower() != "file"]
    lower = [name.lower() for name in classes]
    for name in classes:
        if lower.count(name.lower()) > 1:
            raise InputError(f"{table}, line 1: two columns are called {name!r}; remove one")
    entries = {}
    for line, (file, *cells) in read_table(table, "file", *lower):
        where = f"{table}, line {line}"
        marks = [cell.lower() for cell in cells]
        for name, mark, cell in zip(classes, marks, cells, strict=True):
            if mark not in SHOWN | ABSENT | UNKNOWN:
                raise InputError(
                    f"{where}: field {name!r}: expected 1 (shown), 0 (not shown) or nothing (not "
                    f"known), got {cell[:80]!r}"
                )
        path = image_file(where, file)
        if path in entries:
            raise InputError(f"{where}: image {path!r} has a row already; remove one")
        shown, unknown = (
            tuple(name for name, mark in zip(classes, marks, strict=True) if mark in which)
            for which in (SHOWN, UNKNOWN)
        )
        entries[path] = ImageEntry(path, path, shown, unknown)
    return Listing(list(entries.values()))
