"""NUS-WIDE: a list of images, and a list of 0 and 1 per concept, line by line."""

from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from tasks.errors import InputError
from tasks.images.entries import ImageEntry, Listing
from tasks.images.lists import image_file, read_bytes, read_lines


def read_nuswide(image_list: Path) -> Listing:
    """Images of `<Split>Imagelist.txt`, by the concept lists near it."""
    # the official list has Windows' separators
    images = [image_file(image_list, line) for line in read_lines(image_list) if line.strip()]
    split = image_list.name.removesuffix("Imagelist.txt")
    root = image_list.absolute().parent.parent
    concepts = _nearest(root, "Concepts81.txt", "ConceptsList")
    labels = _nearest(root, "TrainTestLabels", "Groundtruth")
    shown: list[list[str]] = [[] for _ in images]
    for concept in (line.strip() for line in read_lines(concepts)):
        if not concept:
            continue
        path = labels / image_file(concepts, f"Labels_{concept}_{split}.txt")
        for row in np.flatnonzero(_marks(path, image_list, len(images))):
            shown[row].append(concept)
    return Listing(
        [
            ImageEntry(PurePosixPath(file).with_suffix("").as_posix(), file, tuple(of_image))
            for file, of_image in zip(images, shown, strict=True)
        ]
    )


def _marks(path: Path, image_list: Path, images: int) -> npt.NDArray[np.bool_]:
    """A concept's marks, one per image."""
    content = read_bytes(path)
    written = content.split()
    signs = b"".join(written)
    # hundreds of thousands of lines, as they should be
    if images == len(written) == len(signs) == len(content.splitlines()) and not signs.strip(b"01"):
        shown: npt.NDArray[np.bool_] = np.frombuffer(signs, np.uint8) == ord("1")
        return shown
    marks = []
    for number, line in enumerate(read_lines(path), start=1):
        mark = line.strip()
        if mark not in ("0", "1", ""):
            raise InputError(f"{path}, line {number}: expected 0 or 1, got {line[:40]!r}")
        if mark:
            marks.append(mark == "1")
    if len(marks) != images:
        raise InputError(
            f"{path}: expected {images} lines of 0 or 1, one per image of {image_list.name}, got "
            f"{len(marks)}"
        )
    return np.array(marks)


def _nearest(root: Path, name: str, folder: str) -> Path:
    """`name` in `root` or, as the official archives unpack, in a folder of its own."""
    places = (root / name, root / folder / name)
    for place in places:
        if place.exists():
            return place
    raise InputError(f"{places[0]}: neither here nor in {folder}/; expected NUS-WIDE's {name}")
