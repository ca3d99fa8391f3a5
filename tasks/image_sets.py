"""Image sets: which images there are and what each shows, read from MS-COCO's layout."""

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tasks.errors import InputError


@dataclass(frozen=True)
class ImageEntry:
    """One image of a set and the categories that it shows."""

    image_id: str
    file: str
    categories: tuple[str, ...]


def read_coco_images(annotations: Path, folder: Path) -> list[ImageEntry]:
    """Images of a COCO instances JSON, in its order; those without an object are included.

    Raises:
        InputError: the file or folder is missing or broken, or a file name leaves the folder.

    """
    try:
        content = json.loads(annotations.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{annotations}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{annotations}: cut or broken JSON: {error}; fetch it again") from error
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected the images of {annotations.name}")
    try:
        categories = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
        shown: dict[Any, set[str]] = {entry["id"]: set() for entry in content["images"]}
        for entry in content["annotations"]:
            shown[entry["image_id"]].add(categories[entry["category_id"]])
        files = {entry["id"]: str(entry["file_name"]) for entry in content["images"]}
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{annotations}: no or unknown {error}; expected MS-COCO's instances_*.json"
        ) from error
    if not files:
        raise InputError(f"{annotations}: field 'images' is empty; expected at least one")
    for file in files.values():
        if PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts or "\0" in file:
            raise InputError(f"{annotations}: file_name {file!r} leaves the image folder")
    if not any((folder / file).is_file() for file in files.values()):
        first = next(iter(files.values()))
        raise InputError(f"{folder}: none of the images is here; the first would be {first}")
    return [ImageEntry(str(i), files[i], tuple(sorted(shown[i]))) for i in files]
