"""PASCAL VOC's devkit: image lists, class lists beside them, or an XML file per image."""

import codecs
import re
from pathlib import Path, PurePosixPath
from typing import Final
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException, ElementTree

from tasks.errors import InputError
from tasks.images.decode import SUFFIXES
from tasks.images.entries import ImageEntry, Listing
from tasks.images.lists import image_file, read_lines

MARKS: Final = {"1": "shown", "0": "ignored", "-1": "absent"}
DECLARATION: Final = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)["'][^>]*\?>""")
TRUE: Final = frozenset({"1", "true", "yes"})


def read_voc(image_list: Path, folder: Path) -> Listing:
    """Images of a list with what they show, by class lists or by annotations.

    Args:
        image_list: ImageSets/Main/<split>.txt.
        folder: of the images, which are JPEGs or, by the same names, others.

    Raises:
        InputError: a list or an annotation is missing or broken, or a class list lacks an image:
            what is not said is no negative.

    """
    images = _images(image_list)
    suffix = f"_{image_list.name}"
    lists = sorted(p for p in image_list.absolute().parent.iterdir() if p.name.endswith(suffix))
    shown: dict[str, list[str]] = {image: [] for image in images}
    ignored: dict[str, list[str]] = {image: [] for image in images}
    if not lists:
        for image in images:
            root = image_list.absolute().parent.parent.parent
            shown[image], ignored[image] = _objects(root / "Annotations" / f"{image}.xml")
    for path in lists:
        label = path.name.removesuffix(suffix)
        for image, mark in _marks(path, image_list, images).items():
            if mark != "absent":
                (shown if mark == "shown" else ignored)[image].append(label)
    files = _files(folder)
    return Listing(
        [
            ImageEntry(
                image,
                files.get(image, f"{image}.jpg"),
                tuple(shown[image]),
                tuple(ignored[image]),
            )
            for image in images
        ]
    )


def _files(folder: Path) -> dict[str, str]:
    """Names of the folder's images by what stands before the suffix; a JPEG before others."""
    names = (path.name for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    ordered = sorted(names, key=lambda name: (name.endswith(".jpg"), name))
    return {PurePosixPath(name).stem: name for name in ordered}


def _images(image_list: Path) -> list[str]:
    found: dict[str, int] = {}
    lines = [(n, line.strip()) for n, line in enumerate(read_lines(image_list), start=1)]
    lines = [(number, line) for number, line in lines if line]
    # a class's own list serves as well; names may have blanks
    parts = [line.rsplit(None, 1) for _, line in lines]
    if all(len(part) == 2 and part[1] in MARKS for part in parts):
        lines = [(number, image) for (number, _), (image, _) in zip(lines, parts, strict=True)]
    for number, line in lines:
        image = image_file(f"{image_list}, line {number}", line)
        if image in found:
            raise InputError(
                f"{image_list}, line {number}: image {image!r} is listed twice, first in line "
                f"{found[image]}; remove one"
            )
        found[image] = number
    return list(found)


def _marks(path: Path, image_list: Path, images: list[str]) -> dict[str, str]:
    """What a class list says of each image."""
    known, found = set(images), dict[str, str]()
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        image, _, mark = line.strip().replace("\t", " ").rpartition(" ")
        image = image.strip()
        if image not in known or mark not in MARKS:
            raise InputError(
                f"{path}, line {number}: expected an image of {image_list.name} and -1, 0 or "
                f"1, got {line[:40]!r}"
            )
        if found.setdefault(image, MARKS[mark]) != MARKS[mark]:
            raise InputError(f"{path}, line {number}: a second mark of image {image!r}; remove one")
    missing = [image for image in images if image not in found]
    if missing:
        raise InputError(
            f"{path}: no line for image {missing[0]!r} ({len(missing):,} of {len(images):,} images "
            f"of {image_list.name} are missing); expected -1, 0 or 1 for each"
        )
    return found


def _objects(path: Path) -> tuple[list[str], list[str]]:
    """Classes that an image shows, and those of which all its objects are difficult."""
    difficult: dict[str, bool] = {}
    found = (one for one in _root(path).iter() if _name(one) == "object")
    for number, one in enumerate(found, start=1):
        parts = {_name(part): (part.text or "").strip() for part in reversed(one)}
        name = parts.get("name")
        if not name:
            raise InputError(f"{path}: object {number}: field 'name' is empty; expected a class")
        is_difficult = parts.get("difficult", "0").lower() in TRUE
        difficult[name] = difficult.get(name, True) and is_difficult
    names = sorted(difficult)
    return [n for n in names if not difficult[n]], [n for n in names if difficult[n]]


def _name(element: Element) -> str:
    """An element's name without its namespace."""
    return str(element.tag).rpartition("}")[2]


def _root(path: Path) -> Element:
    """The annotation, in the encoding that it declares: XML parsers know but a few."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    declared = DECLARATION.match(content.removeprefix(codecs.BOM_UTF8))
    encoding = "UTF-8"
    try:
        if declared and not content.startswith(codecs.BOM_UTF8):
            encoding = declared.group(1).decode("ascii")
            content = content[declared.end() :].decode(encoding).encode("utf-8")
        elif declared:
            content = content.removeprefix(codecs.BOM_UTF8)[declared.end() :]
        root: Element = ElementTree.fromstring(content, forbid_dtd=True)
    except LookupError as error:
        raise InputError(f"{path}: encoding {encoding!r} is not known; expected UTF-8") from error
    except UnicodeError as error:
        raise InputError(
            f"{path}: not {encoding} text; state its encoding or save it so"
        ) from error
    except ParseError as error:
        raise InputError(f"{path}: not a PASCAL VOC annotation: {error}") from error
    except (DefusedXmlException, ValueError) as error:
        raise InputError(
            f"{path}: not a PASCAL VOC annotation: it has a document type; expected none"
        ) from error
    return root
