"""Annotations: which images a set has and what each shows, in the official layouts on disk.

- `coco`: MS-COCO's instances_*.json; the categories' names are the classes.
- `voc2007`: the devkit's ImageSets/Main/<split>.txt, with <class>_<split>.txt beside it or, where
  there are none, ../../Annotations/<image>.xml. A class of which an image shows *difficult*
  objects alone is ignored on it: neither right nor wrong, as PASCAL VOC and the papers have it.
- `nuswide`: ImageList/<Split>Imagelist.txt, with Concepts81.txt and TrainTestLabels/ near it.
- `folder`: any images, with a CSV (file, class) or, to be tagged only, without.

Readers look at lists, not at images: a missing or broken image is found, listed and counted by the
images stage.
"""

import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree.ElementTree import ParseError

import numpy as np
import orjson
from defusedxml import DefusedXmlException, ElementTree

from tasks.errors import InputError
from tasks.images.folders import files_of


@dataclass(frozen=True)
class ImageEntry:
    """One image of a set and what it shows."""

    image_id: str
    file: str
    """Path relative to the image folder, with forward slashes."""
    classes: tuple[str, ...]
    ignored: tuple[str, ...] = ()
    """Classes that count as neither shown nor not shown."""


def read_image_set(form: str, annotations: Path | None, folder: Path) -> list[ImageEntry]:
    """Images of a set in its list's order; those that show nothing are included.

    Args:
        form: coco, voc2007, nuswide or folder.
        annotations: the list file of that layout; None only for a folder of images to be tagged.
        folder: where the images are.

    Raises:
        InputError: a list or the folder is missing or broken, no image is there at all, or a file
            name leaves the folder.

    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected the image set's images")
    if annotations is None:
        return _of_folder(folder)
    readers: dict[str, Callable[[Path], Iterable[ImageEntry]]] = {
        "coco": _of_coco,
        "voc2007": _of_voc,
        "nuswide": _of_nuswide,
        "folder": _of_table,
    }
    entries = list(readers[form](annotations))
    if not entries:
        raise InputError(f"{annotations}: no image; expected at least one")
    files: set[str] = set()
    for entry in entries:
        if entry.file in files:
            raise InputError(f"{annotations}: image {entry.file!r} is listed twice")
        files.add(_inside(annotations, entry.file))
    if not any((folder / entry.file).is_file() for entry in entries):
        raise InputError(
            f"{folder}: none of the images is here; the first would be {entries[0].file}"
        )
    return entries


def read_objects(annotations: Path) -> dict[str, tuple[str, ...]]:
    """Classes by image id of COCO instances; the images themselves need not be here."""
    return {entry.image_id: entry.classes for entry in _of_coco(annotations)}


def _of_coco(annotations: Path) -> list[ImageEntry]:
    try:
        content = orjson.loads(_bytes(annotations))
    except orjson.JSONDecodeError as error:
        raise InputError(f"{annotations}: cut or broken JSON: {error}; fetch it again") from error
    try:
        names = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
        shown: dict[Any, set[str]] = {entry["id"]: set() for entry in content["images"]}
        for entry in content["annotations"]:
            shown[entry["image_id"]].add(names[entry["category_id"]])
        return [
            ImageEntry(str(entry["id"]), str(entry["file_name"]), tuple(sorted(shown[entry["id"]])))
            for entry in content["images"]
        ]
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{annotations}: no or unknown {error}; expected MS-COCO's instances_*.json"
        ) from error


def _of_voc(image_list: Path) -> list[ImageEntry]:
    images = [_inside(image_list, line.split()[0]) for line in _lines(image_list) if line.strip()]
    suffix = f"_{image_list.name}"
    lists = sorted(path for path in image_list.parent.glob(f"*{suffix}") if path != image_list)
    shown: dict[str, list[str]] = {image: [] for image in images}
    ignored: dict[str, list[str]] = {image: [] for image in images}
    if not lists:
        for image in images:
            path = image_list.parents[2] / "Annotations" / f"{image}.xml"
            shown[image], ignored[image] = _objects(path)
    for path in lists:
        label = path.name.removesuffix(suffix)
        for number, line in enumerate(_lines(path), start=1):
            image, _, mark = line.partition(" ")
            if image not in shown or mark.strip() not in ("-1", "0", "1"):
                raise InputError(
                    f"{path}, line {number}: expected an image of {image_list.name} and -1, 0 or "
                    f"1, got {line[:40]!r}"
                )
            if mark.strip() != "-1":
                (shown if mark.strip() == "1" else ignored)[image].append(label)
    return [
        ImageEntry(image, f"{image}.jpg", tuple(shown[image]), tuple(ignored[image]))
        for image in images
    ]


def _objects(path: Path) -> tuple[list[str], list[str]]:
    """Classes that an image shows, and those of which all its objects are difficult."""
    try:
        root = ElementTree.fromstring(_bytes(path), forbid_dtd=True)
    except (ParseError, DefusedXmlException) as error:
        raise InputError(f"{path}: not a PASCAL VOC annotation: {error}") from error
    difficult: dict[str, bool] = {}
    for found in root.iter("object"):
        name = found.findtext("name", "").strip()
        if not name:
            raise InputError(f"{path}: field 'object.name' is empty; expected a class")
        is_difficult = found.findtext("difficult", "0").strip() == "1"
        difficult[name] = difficult.get(name, True) and is_difficult
    names = sorted(difficult)
    return [n for n in names if not difficult[n]], [n for n in names if difficult[n]]


def _of_nuswide(image_list: Path) -> list[ImageEntry]:
    # the official list has Windows' separators
    images = [line.strip().replace("\\", "/") for line in _lines(image_list) if line.strip()]
    split = image_list.name.removesuffix("Imagelist.txt")
    root = image_list.parents[1]
    concepts = _nearest(root, "Concepts81.txt", "ConceptsList")
    labels = _nearest(root, "TrainTestLabels", "Groundtruth")
    shown: list[list[str]] = [[] for _ in images]
    for concept in (line.strip() for line in _lines(concepts)):
        if not concept:
            continue
        path = labels / _inside(concepts, f"Labels_{concept}_{split}.txt")
        marks = np.frombuffer(b"".join(_bytes(path).split()), dtype=np.uint8) - ord("0")
        if len(marks) != len(images) or (marks > 1).any():
            raise InputError(
                f"{path}: expected {len(images)} lines of 0 or 1, one per image of "
                f"{image_list.name}, got {len(marks)}"
            )
        for row in np.flatnonzero(marks):
            shown[row].append(concept)
    return [
        ImageEntry(PurePosixPath(file).with_suffix("").as_posix(), file, tuple(of_image))
        for file, of_image in zip(images, shown, strict=True)
    ]


def _nearest(root: Path, name: str, folder: str) -> Path:
    """`name` in `root` or, as the official archives unpack, in a folder of its own."""
    places = (root / name, root / folder / name)
    for place in places:
        if place.exists():
            return place
    raise InputError(f"{places[0]}: neither here nor in {folder}/; expected NUS-WIDE's {name}")


def _of_table(table: Path) -> list[ImageEntry]:
    shown: dict[str, list[str]] = {}
    reader = csv.DictReader(_lines(table), strict=True)
    try:
        if not {"file", "class"} <= set(reader.fieldnames or ()):
            raise InputError(f"{table}, line 1: expected the columns file and class")
        for row in reader:
            file, label = row["file"], row["class"]
            if not file or label is None:
                raise InputError(
                    f"{table}, line {reader.line_num}: expected a file and a class (empty for an "
                    "image that shows none)"
                )
            shown.setdefault(file, [])
            if label.strip():
                shown[file].append(label.strip())
    except csv.Error as error:
        raise InputError(f"{table}, line {reader.line_num}: broken CSV: {error}") from error
    return [ImageEntry(file, file, tuple(dict.fromkeys(names))) for file, names in shown.items()]


def _of_folder(folder: Path) -> list[ImageEntry]:
    found = files_of(folder)
    if not found.pictures:
        others = ", ".join(f"{n} {suffix}" for suffix, n in found.passed_over.most_common(3))
        raise InputError(
            f"{folder}: no image; expected at least one, found {others or 'nothing at all'}"
        )
    files = found.pictures
    return [ImageEntry(file, file, ()) for file in files]


def _inside(where: Path, name: str) -> str:
    """`name`, once it is sure that it stays in the folder that it is relative to."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or name[1:2] == ":":
        raise InputError(f"{where}: file name {name!r} leaves its folder")
    return name


def _lines(path: Path) -> list[str]:
    try:
        return _bytes(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text") from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
