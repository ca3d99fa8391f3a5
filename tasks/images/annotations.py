"""Annotations: which images a set has and what each shows, in the official layouts on disk.

- `coco`: MS-COCO's instances_*.json; the categories' names are the classes.
- `voc2007`: the devkit's ImageSets/Main/<split>.txt, with <class>_<split>.txt beside it or, where
  there are none, ../../Annotations/<image>.xml. A class of which an image shows *difficult*
  objects alone is ignored on it: neither right nor wrong, as PASCAL VOC and the papers have it.
- `nuswide`: ImageList/<Split>Imagelist.txt, with Concepts81.txt and TrainTestLabels/ near it.
- `folder`: any images, with a CSV (file, class; where it has a column mark, as reviews save it, 1
  is shown, 0 not shown, ? unknown), one with a column for each class (1 shown, 0 not
  shown, anything that says so unknown), or, to be tagged only, without.

Readers look at lists, not at images: a missing or broken image is found, listed and counted by the
images stage.
"""

import re
from collections.abc import Callable
from pathlib import Path

from tasks.errors import InputError
from tasks.images.coco_instances import read_instances
from tasks.images.entries import ImageEntry, Listing
from tasks.images.folders import files_of
from tasks.images.lists import image_file, read_header, read_table
from tasks.images.marks import read_marks
from tasks.images.nuswide import read_nuswide
from tasks.images.voc import read_voc
from tasks.places import Address, Place, any_there


def read_image_set(form: str, annotations: Path | None, folder: Place) -> Listing:
    """Images of a set in its list's order; those that show nothing are included.

    Args:
        form: coco, voc2007, nuswide or folder.
        annotations: the list file of that layout; None only for a folder of images to be tagged.
        folder: where the images are.

    Raises:
        InputError: a list or the folder is missing or broken, no image is there at all, two have
            one name, or a file name leaves the folder.

    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected the image set's images")
    if annotations is None:
        return _of_folder(folder)
    readers: dict[str, Callable[[Path], Listing]] = {
        "coco": read_instances,
        "voc2007": lambda path: read_voc(path, _here(folder)),
        "nuswide": read_nuswide,
        "folder": _of_table,
    }
    listing = readers[form](annotations)
    entries = listing.entries
    if not entries:
        raise InputError(f"{annotations}: no image; expected at least one")
    files: set[str] = set()
    for entry in entries:
        if entry.file in files:
            raise InputError(f"{annotations}: image {entry.file!r} is listed twice; remove one")
        files.add(entry.file)
    if not any_there(folder, (entry.file for entry in entries)):
        raise InputError(
            f"{folder}: none of the images is here; the first would be {entries[0].file}"
        )
    return listing


def _here(folder: Place) -> Path:
    if isinstance(folder, Address):
        raise InputError(f"{folder}: PASCAL VOC's images are looked for in a folder here")
    return folder


def _of_table(table: Path) -> Listing:
    header = read_header(table, "file")
    names = [name.lower() for name in header]
    if len(header) > 1 and "class" not in names:
        return read_marks(table, header)
    columns = ("file", "class", "mark") if "mark" in names else ("file", "class")
    shown: dict[str, dict[str, str]] = {}
    for line, (file, label, *marks) in read_table(table, *columns):
        where, mark = f"{table}, line {line}", marks[0] if marks else ""
        if mark not in ("", "1", "0", "?"):
            raise InputError(f"{where}: field 'mark': expected 1, 0 or ?, got {mark[:20]!r}")
        # several classes may stand in one cell, where each has no mark of its own
        parts = [label] if marks else re.split(r"[;|\t\r\n]", label)
        classes = shown.setdefault(image_file(where, file), {})
        classes.update({part.strip(): mark or "1" for part in parts if part.strip()})
    return Listing(
        [
            ImageEntry(file, file, *(tuple(c for c in of if of[c] == mark) for mark in ("1", "?")))
            for file, of in shown.items()
        ]
    )


def _of_folder(folder: Place) -> Listing:
    found = files_of(folder)
    if not found.pictures:
        others = ", ".join(f"{n} {suffix}" for suffix, n in found.passed_over.most_common(3))
        raise InputError(
            f"{folder}: no image; expected at least one, found {others or 'nothing at all'}"
        )
    entries = [ImageEntry(file, file, None) for file in found.pictures]
    return Listing(entries, passed_over=found.passed_over, others=found.others)
