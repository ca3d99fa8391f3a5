"""MS-COCO's instances JSON: images, categories and which image has an object of which category.

Ids are compared as written (1, 1.0 and "1" are one). An annotation that names no image or category
of the file is left out and told; what is wrong with an image or a category concerns all, and stops.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from tasks.corpus import exact_json
from tasks.corpus.records import dump, id_of, is_utf8
from tasks.errors import InputError
from tasks.images.entries import ImageEntry, Listing
from tasks.images.lists import image_file, read_bytes

LISTS: Final = ("images", "categories", "annotations")
IDS: Final = (("images", "id"), ("categories", "id"))
IDS_MEANT: Final = (("annotations", "image_id"), ("annotations", "category_id"))
LONGEST_VALUE: Final = 60
# floats from here on may have been other integers
EXACT: Final = 2**53


def read_instances(path: Path) -> Listing:
    """The images of an instances file, each with its classes by name.

    Raises:
        InputError: broken JSON, or an image or a category that is none; with place and field.

    """
    content = _content(path)
    names = _by_id(path, "categories", content["categories"], "name")
    files = _by_id(path, "images", content["images"], "file_name")
    shown: dict[str, set[str]] = {image: set() for image in files}
    strays: list[str] = []
    for number, found in enumerate(content["annotations"], start=1):
        at = f"annotation {number}"
        if not isinstance(found, dict):
            strays.append(f"{at}: expected an object, got {_value(found)}")
            continue
        image, category = id_of(found.get("image_id")), id_of(found.get("category_id"))
        if image not in files:
            strays.append(f"{at}: field 'image_id' is {_value(found.get('image_id'))}: no image")
        elif category not in names:
            strays.append(
                f"{at}: field 'category_id' is {_value(found.get('category_id'))}: no category"
            )
        else:
            shown[str(image)].add(names[str(category)])
    if strays and len(strays) == len(content["annotations"]):
        raise InputError(f"{path}: no annotation is of use; {strays[0]}")
    entries = [
        ImageEntry(
            image, image_file(f"{path}, image id {image}", file), tuple(sorted(shown[image]))
        )
        for image, file in files.items()
    ]
    return Listing(entries, tuple(strays))


def _content(path: Path) -> dict[str, list[Any]]:
    text = read_bytes(path)
    try:
        content = orjson.loads(text)
        is_exact = not _has_rounded_ids(content)
    except ValueError:
        # NaN and bytes that are no text are no JSON, but are written all the same
        is_exact = False
    try:
        if not is_exact:
            content = exact_json.loads(text.decode("utf-8", "surrogateescape"))
    except json.JSONDecodeError as error:
        at = f"{path}, line {error.lineno}, column {error.colno}"
        raise InputError(f"{at}: cut or broken JSON ({error.msg}); fetch it again") from error
    except ValueError as error:
        raise InputError(f"{path}: broken JSON: {error}; fetch it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: {_value(content)}; expected an object, as instances_*.json is")
    for name in LISTS:
        if not isinstance(content.get(name), list):
            raise InputError(f"{path}: no list {name!r}; expected MS-COCO's instances_*.json")
    return content


def _has_rounded_ids(content: Any) -> bool:
    """True if numbers of more than 64 bits may have become floats, and so others."""
    if not isinstance(content, dict):
        return False
    return any(
        isinstance(one, dict) and type(one.get(field)) is float and abs(one[field]) >= EXACT
        for name, field in (*IDS, *IDS_MEANT)
        if isinstance(content.get(name), list)
        for one in content[name]
    )


def _by_id(path: Path, kind: str, entries: Sequence[Any], field: str) -> dict[str, str]:
    """A text field of entries by their ids, which must differ."""
    found: dict[str, str] = {}
    for number, entry in enumerate(entries, start=1):
        at = f"{path}, {kind}, entry {number}"
        if not isinstance(entry, dict):
            raise InputError(f"{at}: expected an object, got {_value(entry)}")
        key, value = id_of(entry.get("id")), entry.get(field)
        if key is None:
            raise InputError(f"{at}: field 'id' is {_value(entry.get('id'))}; expected an id")
        if not isinstance(value, str) or not value.strip() or not is_utf8(value):
            raise InputError(f"{at}: field {field!r} is {_value(value)}; expected a name")
        if key in found:
            raise InputError(
                f"{at}: id {key} is of {found[key]!r} and of {value!r}; expected ids that differ"
            )
        found[key] = value.strip()
    return found


def _value(value: Any) -> str:
    """A value as JSON writes it, for a message."""
    if value is None:
        return "not there or null"
    text = dump(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."
