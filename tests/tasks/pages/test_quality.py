"""Scores of labels against objects by hand-made counts, and the page of a hostile corpus."""

import csv
import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.doors import check_captions
from tasks.corpus.ingest import ingest_captions
from tasks.corpus.sources import caption_files
from tasks.errors import InputError
from tasks.labels.label import label_captions
from tasks.pages.objects import against_objects, total
from tasks.pages.quality import quality
from tasks.profile import load_profile

ROOT = Path(__file__).parents[3]
CLASSES = ["cat", "dog", "bus"]
SETS = st.sets(st.sampled_from(CLASSES))


@settings(max_examples=40)
@given(
    captions=st.lists(st.tuples(st.sampled_from("123"), SETS), max_size=12),
    objects=st.dictionaries(st.sampled_from("12"), SETS, min_size=1),
)
def test_scores_are_those_of_counting_by_hand(
    captions: list[tuple[str, set[str]]], objects: dict[str, set[str]]
) -> None:
    with duckdb.connect() as connection:
        ids = [str(place) for place in range(len(captions))]
        corpus = {"caption_id": ids, "image_id": [image for image, _ in captions]}
        text = pa.string()
        connection.register("corpus", pa.table(corpus, pa.schema(dict.fromkeys(corpus, text))))
        named = [[i, sorted(found)] for i, (_, found) in zip(ids, captions, strict=True) if found]
        labels = {"caption_id": [i for i, _ in named], "classes": [found for _, found in named]}
        schema = pa.schema({"caption_id": text, "classes": pa.list_(text)})
        connection.register("labels", pa.table(labels, schema))
        connection.register("classes", pa.table({"class": CLASSES, "class_index": [0, 1, 2]}))
        known = [(image, found) for image, found in captions if image in objects]
        if not any(objects[image] for image, _ in known):
            with pytest.raises(InputError, match="no caption is of an image"):
                against_objects(connection, objects)
            return
        measured = against_objects(connection, objects)
    pooled: dict[str, set[str]] = {}
    for image, found in known:
        pooled[image] = pooled.get(image, set()) | found
    for units, scores in ((known, measured.captions), (list(pooled.items()), measured.images)):
        for label, one in zip(CLASSES, scores, strict=True):
            assert one.label == label
            assert one.shown == sum(label in objects[image] for image, _ in units)
            assert one.named == sum(label in found for _, found in units)
            assert one.right == sum(label in objects[image] & found for image, found in units)
        whole = total(scores)
        right = sum(len(objects[image] & found) for image, found in units)
        assert whole.recall == right / sum(len(objects[image]) for image, _ in units)
        everything = sum(len(found) for _, found in units)
        assert whole.precision == (right / everything if everything else None)


def quality_of(folder: Path, **changes: Any) -> Any:
    source = {"source": "t", "form": "coco", "path": str(folder / "captions.json")}
    values = {"sources": [source], "vocabulary": str(folder / "v.csv")}
    profile = load_profile(str(ROOT / "tests/small/small.toml"), values | changes)
    vocabulary = check_captions(profile)
    found = []
    for source_, path in caption_files(profile):
        corpus = ingest_captions.fn(source_, path)
        found.append((path, corpus, label_captions.fn(corpus, vocabulary)))
    return quality.fn(profile, vocabulary, found)


def test_a_page_is_whole_and_names_are_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAI_HOME", str(tmp_path / "home"))
    (tmp_path / "v.csv").write_text("class,synonym\n<script>,dog\ncat,cat\n&never,unicorn\n")
    captions = [
        {"id": 1, "image_id": 1, "caption": "A dog <img src=x>"},
        {"id": 2, "image_id": 1, "caption": "A dog and a cat"},
        {"id": 3, "image_id": 2, "caption": "A dog and a cat"},
        {"id": 4, "image_id": 2, "caption": "<b>\u0000</b>"},
    ]
    images = [{"id": 1}, {"id": 2}]
    (tmp_path / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    instances = {
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in (1, 2)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "<script>"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 2}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(instances))
    stage = quality_of(tmp_path, objects=str(tmp_path / "instances.json"))
    page = stage.file("index.html").read_text(encoding="utf-8")
    for hostile in ("<script", "<img src=x", "<b>"):
        assert hostile not in page
    assert "&lt;script&gt;" in page
    assert "&amp;never" in page
    assert "control_characters" in page
    assert "mathdefault" not in page
    # the answer, with the counts behind it
    assert "the image shows 2 of 5 (precision)" in page
    assert "2 of 2 (recall)" in page
    assert "2 / 3 / 2" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    # labels: dog, dog + cat of image 1, which shows the dog alone; image 2 shows nothing
    assert stage.figures["precision/caption"] == pytest.approx(2 / 5)
    assert stage.figures["recall/caption"] == 1
    rows = list(csv.DictReader(stage.file("scores.csv").read_text().splitlines()))
    assert [(row["class"], row["caption_named"]) for row in rows] == [
        ("all", "5"),
        ("<script>", "3"),
        ("cat", "2"),
    ]
    assert quality_of(tmp_path).counts["captions/repeated"] == 1


def test_objects_of_other_images_are_no_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAI_HOME", str(tmp_path / "home"))
    (tmp_path / "v.csv").write_text("class,synonym\ndog,dog\n")
    caption = {"id": 1, "image_id": 77, "caption": "A dog"}
    (tmp_path / "captions.json").write_text(
        json.dumps({"images": [{"id": 77}], "annotations": [caption]})
    )
    with pytest.raises(InputError, match="field 'objects'"):
        quality_of(tmp_path, objects="instances_demo.json")
