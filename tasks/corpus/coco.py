"""MS-COCO's captions JSON: annotations and images, streamed in file order."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks.corpus.json_text import JsonText, Piece
from tasks.corpus.records import (
    RECORDS,
    Block,
    Broken,
    Record,
    dump,
    id_of,
    ids,
    make_records,
    places,
    record_of,
    strings,
    whole_records,
)
from tasks.corpus.text_files import opened
from tasks.errors import InputError


def read_coco(path: Path) -> Iterator[Block]:
    """Annotations and images of a COCO captions file.

    An annotation without an id is known by what it says, as a row of a table without an id column.
    """
    first = 1
    for key, piece, size in coco_items(path):
        if key == "images":
            yield Block(range(0), RECORDS.empty_table, str, size, _image_ids(piece))
        else:
            yield _block(first, piece, size)
            first += len(piece.items)


def coco_items(path: Path) -> Iterator[tuple[str, Piece, int]]:
    """(key, some items, their characters) of the lists `images` and `annotations`, in order."""
    with opened(path) as file:
        text = JsonText(path, file)
        text.take("{", "a JSON object, as in MS-COCO's captions_*.json")
        seen = set()
        while text.peek() == '"':
            key = text.value()
            text.take(":", "':' after a key")
            if key in ("images", "annotations"):
                seen.add(key)
                start = text.place
                for number, piece in enumerate(text.blocks()):
                    if key == "annotations" and number == 0:
                        _check_annotation(path, piece.items[0])
                    yield key, piece, text.place - start
                    start = text.place
            else:
                text.skip()
            if text.take(",}", "',' or '}' after a value") == "}":
                break
        else:
            text.take("}", "a key")
        if text.peek():
            raise text.fail("nothing after the object")
        for key in ("images", "annotations"):
            if key not in seen:
                raise InputError(f"{path}: no list {key!r}; expected MS-COCO's captions_*.json")


def _block(first: int, piece: Piece, size: int) -> Block:
    items = piece.items
    return Block(
        range(first, first + len(items)),
        lambda: make_records(first, items, _columns, _record, lambda: piece.exact),
        lambda position: dump(piece.exact[position - first]),
        size,
    )


def _columns(first: int, items: Sequence[Any]) -> pa.Table | None:
    """Records of annotations that are all whole, or None."""
    try:
        natives = ids([item["id"] for item in items])
        images = ids([item["image_id"] for item in items])
        texts = strings([item["caption"] for item in items])
    except (KeyError, TypeError, IndexError):
        return None
    if natives is None or images is None or texts is None:
        return None
    return whole_records(places(first, len(items)), natives, images, texts)


def _record(position: int, item: Any) -> list[Record]:
    if not isinstance(item, dict):
        problem = "not_json" if isinstance(item, Broken) else "not_an_object"
        return [Record(position, problem=problem)]
    native, image = id_of(item.get("id")), id_of(item.get("image_id"))
    if image is None or (native is None and item.get("id") is not None):
        return [Record(position, problem="no_id")]
    return record_of(position, native, image, item.get("caption"))


def _image_ids(piece: Piece) -> pa.Array:
    """Ids of a COCO file's images, as captions' are compared with them."""
    try:
        found = ids([item["id"] for item in piece.items])
    except (KeyError, TypeError, IndexError):
        found = None
    if found is not None:
        return found
    # an image whose id is none has no caption either
    items = (item for item in piece.exact if isinstance(item, dict) and "id" in item)
    named = (id_of(item["id"]) for item in items)
    return pa.array([one for one in named if one is not None and one.isprintable()], pa.string())


def _check_annotation(path: Path, item: Any) -> None:
    if isinstance(item, dict) and "caption" not in item and "category_id" in item:
        raise InputError(
            f"{path}: its annotations are objects without 'caption'; expected a captions file "
            "(captions_*.json), this looks like instances"
        )
