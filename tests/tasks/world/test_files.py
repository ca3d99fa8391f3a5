"""The world's files are read by the ordinary readers, and the settings alone decide their bytes."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tasks.corpus import ingest
from tasks.images.image_sets import read_image_set
from tasks.settings import WorldSettings
from tasks.world import files
from tasks.world.glyphs import HELD_OUT

SETTINGS = WorldSettings(seed=4, captions=40, scenes=30, labelled=5)


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    counts = files.write_world(SETTINGS, folder)
    assert counts == {
        "captions/coco": 30,
        "captions/narratives": 10,
        "scenes/same-style": 30,
        "scenes/style-shift": 30,
        "scenes/labelled": 5,
    }
    return folder


def test_the_seed_decides_every_byte(world: Path, tmp_path: Path) -> None:
    (tmp_path / "same").mkdir()
    (tmp_path / "other").mkdir()
    files.write_world(SETTINGS, tmp_path / "same")
    assert digests(tmp_path / "same") == digests(world)
    files.write_world(SETTINGS.model_copy(update={"seed": 5}), tmp_path / "other")
    other, ours = digests(tmp_path / "other"), digests(world)
    assert not any(other[name] == digest for name, digest in ours.items())


def test_more_captions_begin_with_the_same_ones() -> None:
    assert [files.caption_of(4, n) for n in range(3)] == [files.caption_of(4, n) for n in range(3)]
    assert files.caption_of(4, 0) != files.caption_of(5, 0)


@pytest.mark.parametrize(
    ("form", "file", "text_of", "count"),
    [
        ("coco", "captions_world.json", files.caption_of, 30),
        ("narratives", "narratives_world.jsonl", files.narrative_of, 10),
    ],
)
def test_captions_are_ingested_as_any_others(
    world: Path, tmp_path: Path, form: str, file: str, text_of: Any, count: int
) -> None:
    counts = ingest.ingest_file(world / "captions" / file, form, "world", "all", tmp_path)
    assert counts["captions/kept"] == counts["captions/read"] == count
    texts = pq.read_table(tmp_path / ingest.CORPUS)["text"].to_pylist()
    assert sorted(texts) == sorted(text_of(SETTINGS.seed, number) for number in range(count))


@pytest.mark.parametrize("name", ["same-style", "style-shift", "labelled"])
def test_image_sets_are_read_by_the_official_reader(world: Path, name: str) -> None:
    folder = world / name
    entries = read_image_set("coco", folder / "instances.json", folder / "images").entries
    fonts = HELD_OUT if name == "style-shift" else files.SEEN
    for number, entry in enumerate(entries):
        assert entry.classes == files.scene_of(4, name, number, fonts).labels
        with Image.open(folder / "images" / entry.file) as picture:
            assert picture.size == (128, 128)
            assert picture.mode == "RGB"
    boxes = json.loads((folder / "instances.json").read_text())["annotations"]
    for found in boxes:
        left, top, width, height = found["bbox"]
        assert width > 0
        assert height > 0
        assert left >= 0
        assert top >= 0
        assert left + width <= 128
        assert top + height <= 128


def test_the_contact_sheet_shows_both_test_sets(world: Path) -> None:
    with Image.open(world / files.SHEET) as sheet:
        assert sheet.width > 8 * 128
        assert sheet.height > 6 * 128
