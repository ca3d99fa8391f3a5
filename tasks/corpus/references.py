"""What people wrote about pictures: MS-COCO captions JSON, by the pictures' files."""

from pathlib import Path
from typing import Any

import orjson

from tasks.errors import InputError


def read_references(path: Path) -> dict[str, list[str]]:
    """Captions by file name.

    Raises:
        InputError: the file cannot be read, or is no captions JSON; with field and position.

    """
    try:
        content = orjson.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}") from error
    files = {
        str(_field(path, "images", number, image, "id")): str(
            _field(path, "images", number, image, "file_name")
        )
        for number, image in enumerate(_list(path, content, "images"), start=1)
    }
    found: dict[str, list[str]] = {}
    for number, one in enumerate(_list(path, content, "annotations"), start=1):
        image = str(_field(path, "annotations", number, one, "image_id"))
        caption = _field(path, "annotations", number, one, "caption")
        if image not in files or not isinstance(caption, str):
            raise InputError(
                f"{path}: annotations, number {number}: expected a caption of an image of the "
                f"file, got image_id {image!r}"
            )
        found.setdefault(files[image], []).append(caption)
    return found


def _list(path: Path, content: Any, field: str) -> list[Any]:
    values = content.get(field) if isinstance(content, dict) else None
    if not isinstance(values, list):
        raise InputError(f"{path}: no list '{field}'; expected MS-COCO captions")
    return values


def _field(path: Path, of: str, number: int, entry: Any, field: str) -> Any:
    if not isinstance(entry, dict) or entry.get(field) is None:
        raise InputError(f"{path}: {of}, number {number}: no field '{field}'")
    return entry[field]
