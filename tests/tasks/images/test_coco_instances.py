"""Instances as people write them: ids in any form, NaN, marks, packed; strays are not fatal."""

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import InputError
from tasks.images.coco_instances import read_instances

NAMES = ("dog", "hot dog", "caf\u00e9", "tree ")
IDS = st.one_of(st.integers(0, 5), st.integers(2**53, 2**53 + 3), st.integers(10**20, 10**20 + 3))


def written(value: int, way: str) -> Any:
    """An id as some exporter writes it; a float only where that is the same number."""
    if way == "float" and int(float(value)) == value and abs(value) < 2**53:
        return float(value)
    return f" {value}" if way == "text" else value


@settings(max_examples=150)
@given(
    images=st.lists(IDS, min_size=1, max_size=6, unique=True),
    found=st.lists(st.tuples(IDS, st.integers(0, 6)), min_size=1, max_size=12),
    ways=st.lists(st.sampled_from(["plain", "float", "text"]), min_size=1, max_size=5),
    area=st.sampled_from([1.5, math.nan, math.inf, None]),
    form=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "gzip"]),
)
def test_what_an_image_shows_is_what_its_ids_say(
    tmp_path_factory: pytest.TempPathFactory,
    images: list[int],
    found: list[tuple[int, int]],
    ways: list[str],
    area: float | None,
    form: str,
) -> None:
    path = tmp_path_factory.mktemp("instances") / "instances.json"
    turn = iter(ways * 100)
    content = {
        "images": [
            {"id": written(i, next(turn)), "file_name": f".\\\\val\\\\{i}.jpg"} for i in images
        ],
        "categories": [{"id": written(i, next(turn)), "name": n} for i, n in enumerate(NAMES)],
        "annotations": [
            {
                "image_id": written(i, next(turn)),
                "category_id": written(c, next(turn)),
                "area": area,
            }
            for i, c in found
        ],
    }
    text = json.dumps(content)
    path.write_bytes(gzip.compress(text.encode()) if form == "gzip" else text.encode(form))
    shown: dict[int, set[str]] = {image: set() for image in images}
    strays = 0
    for image, category in found:
        if image in shown and category < len(NAMES):
            shown[image].add(NAMES[category].strip())
        else:
            strays += 1
    if strays == len(found):
        with pytest.raises(InputError, match="no annotation is of use; annotation 1: field"):
            read_instances(path)
        return
    listing = read_instances(path)
    assert [(e.image_id, e.file, e.classes) for e in listing.entries] == [
        (str(i), f"val/{i}.jpg", tuple(sorted(shown[i]))) for i in images
    ]
    assert len(listing.strays) == strays


IMAGES = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}]
CATEGORIES = [{"id": 1, "name": "dog"}]
ANNOTATIONS = [{"image_id": 1, "category_id": 1}]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"images": [*IMAGES, {"id": "1.0", "file_name": "c.jpg"}]},
            "entry 3: id 1 is of 'a.jpg' and of 'c.jpg'",
        ),
        ({"categories": [*CATEGORIES, {"id": 1, "name": "cat"}]}, "id 1 is of 'dog' and of 'cat'"),
        (
            {"images": [{"id": None, "file_name": "a"}]},
            "images, entry 1: field 'id' is not there or null",
        ),
        ({"images": [{"id": math.nan, "file_name": "a"}]}, "images, entry 1: field 'id' is NaN"),
        ({"images": [{"id": 1}]}, "images, entry 1: field 'file_name' is not there"),
        (
            {"images": [{"id": 1, "file_name": "../a"}]},
            "image id 1: file name '../a' leaves its folder",
        ),
        ({"images": [7]}, "images, entry 1: expected an object, got 7"),
        ({"images": {"id": 1}}, "no list 'images'"),
        ({"categories": None}, "no list 'categories'"),
        ({"categories": [{"id": 1, "name": "\ud800"}]}, "categories, entry 1: field 'name'"),
        (
            {"annotations": [7, {"image_id": 9, "category_id": 1}]},
            "annotation 1: expected an object",
        ),
    ],
)
def test_each_error_names_position_and_field(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    content = {"images": IMAGES, "categories": CATEGORIES, "annotations": ANNOTATIONS} | changed
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        read_instances(path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"images": [\n{"id": 1,}]}', "line 2, column"),
        (b"[1]", "expected an object"),
        (b"", "broken JSON"),
        (b"[" * 100_000, "broken JSON"),
        (b"PK\x03\x04", "zip archive"),
        (b"\x1f\x8b\x08broken", "gzip"),
    ],
)
def test_no_json_is_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "instances.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_instances(path)
