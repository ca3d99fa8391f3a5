"""Which files of a folder are pictures: by suffix or by first bytes, with its subfolders."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from tasks.errors import InputError
from tasks.images.decode import SUFFIXES, looks_like_picture, printable
from tasks.places import Address, Place

HIDDEN: Final = "hidden"
NO_PICTURE: Final = "no picture by its name or its first bytes"


@dataclass(frozen=True)
class Folder:
    """What a folder of pictures holds."""

    pictures: list[str]
    """Sorted paths relative to the folder, with forward slashes, of what is taken for a picture.

    Among them is what is named like one and is none, such as a folder or a dangling link: it will
    be a reject with a reason.
    """
    passed_over: Counter[str]
    """How many other files there are, by suffix in lower case."""
    others: dict[str, str]
    """Why each of them is passed over, by path as above."""


def files_of(folder: Place) -> Folder:
    """Look through a folder and its subfolders, links to folders too; no folder is met twice.

    Hidden files and folders are passed over, as are those that macOS puts into archives. At an
    address, files are told by their suffix alone: to look inside would fetch them.

    Raises:
        InputError: the folder cannot be read.

    """
    if isinstance(folder, Address):
        return _files_at(folder)
    pictures: list[str] = []
    passed_over: Counter[str] = Counter()
    others: dict[str, str] = {}
    seen: set[tuple[int, int]] = set()

    def told(path: Path) -> str:
        return printable(path.relative_to(folder).as_posix())

    def refuse(error: OSError) -> None:
        if error.filename == str(folder):
            raise InputError(f"{folder}: cannot be read: {error.strerror}")
        passed_over["(folder that cannot be read)"] += 1
        others[told(Path(error.filename))] = f"a folder that cannot be read: {error.strerror}"

    for root, names, files in os.walk(folder, onerror=refuse, followlinks=True):
        found = Path(root).stat()
        if (found.st_dev, found.st_ino) in seen:
            names.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        for name in sorted(names):
            path = Path(root, name)
            if name.startswith(".") or name == "__MACOSX":
                names.remove(name)
                others[told(path)] = HIDDEN
            elif path.suffix.lower() in SUFFIXES:
                pictures.append(told(path))
        for name in files:
            path = Path(root, name)
            if not name.startswith(".") and looks_like_picture(path):
                pictures.append(told(path))
            else:
                others[told(path)] = HIDDEN if name.startswith(".") else NO_PICTURE
                passed_over[printable(path.suffix.lower()) or "(no suffix)"] += 1
    return Folder(sorted(pictures), passed_over, dict(sorted(others.items())))


def _files_at(folder: Address) -> Folder:
    pictures: list[str] = []
    passed_over: Counter[str] = Counter()
    others: dict[str, str] = {}
    for file in folder.files():
        path = PurePosixPath(file)
        is_hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
        if path.suffix.lower() in SUFFIXES and not is_hidden:
            pictures.append(file)
        else:
            others[file] = HIDDEN if is_hidden else NO_PICTURE
            passed_over[path.suffix.lower() or "(no suffix)"] += 1
    return Folder(sorted(pictures), passed_over, dict(sorted(others.items())))


def passed_over_told(passed_over: Mapping[str, int], most: int = 5) -> str:
    """How many files were passed over, by suffix, for a log or a page: `3 .txt, 1 .csv`."""
    order = sorted(passed_over.items(), key=lambda found: (-found[1], found[0]))
    told = ", ".join(f"{count:,} {suffix}" for suffix, count in order[:most])
    left = sum(count for _, count in order[most:])
    return f"{told} and {left:,} more" if left else told
