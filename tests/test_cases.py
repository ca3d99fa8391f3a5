"""Inputs that once failed (shared/cases), each with what is right; skipped where they are absent.

Their kinds are tested with made files beside each reader (tests/tasks/corpus/test_odd_files.py,
test_cleaning.py, tests/tasks/images/).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from flows.doors import check_captions
from tasks.captions.choose import choose_captions
from tasks.corpus.ingest import check_file, ingest_captions, ingest_file
from tasks.corpus.readers import Form
from tasks.corpus.records import Columns
from tasks.corpus.sources import caption_files
from tasks.errors import InputError
from tasks.images.annotations import read_image_set
from tasks.images.decode import decode
from tasks.images.names import Names
from tasks.labels.drafts import draft, read_classes
from tasks.labels.label import write_labels
from tasks.labels.vocabulary import builtin_vocabulary_path, load_vocabulary
from tasks.profile import load_profile
from tests.tasks.road import choose

CASES = Path(__file__).parents[2] / "shared" / "cases"
ROOT = Path(__file__).parents[1]
CAPTION = Columns("caption")
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="shared/cases is not here")


def ingested(
    path: Path, form: Form, out: Path, columns: Columns = CAPTION
) -> tuple[dict[str, int], list[dict[str, Any]], list[dict[str, Any]]]:
    check_file(path, form, columns)
    counts = ingest_file(path, form, "s", "x", out, columns=columns)
    return counts, *(
        pq.read_table(out / f"{name}.parquet").to_pylist() for name in ("corpus", "rejects")
    )


def texts(rows: Sequence[dict[str, Any]]) -> list[str]:
    return [row["text"] for row in rows]


@pytest.mark.parametrize("name", ["cc.tsv", "inner.tsv", "long_closed.tsv"])
def test_tab_separated_captions(tmp_path: Path, name: str) -> None:
    path = CASES / "tables" / name
    physical = path.read_bytes().splitlines()
    counts, kept, rejected = ingested(path, "table", tmp_path)
    assert counts["lines/read"] == len(physical)
    assert len(kept) + len(rejected) == len(physical) - 1
    # an open quote costs no other line than its own
    assert len(rejected) <= 1


def test_tables(tmp_path: Path) -> None:
    folder = CASES / "tables"
    _, kept, rejected = ingested(folder / "cp1252.csv", "table", tmp_path, Columns("text"))
    assert [(row["position"], row["reason"]) for row in rejected] == [
        (2, "not_utf8"),
        (3, "not_utf8"),
    ]
    stated = Columns("text", encoding="cp1252")
    _, kept, _ = ingested(folder / "cp1252.csv", "table", tmp_path, stated)
    assert texts(kept)[:2] == ["A man's dog on a sofa", "Caf\u00e9 table, two cats"]
    _, kept, _ = ingested(folder / "semicolon.csv", "table", tmp_path, Columns("text", "id"))
    assert [row["caption_id"] for row in kept] == [f"s/semicolon.csv/{n}" for n in (1, 2, 3, 4)]
    assert texts(kept)[3] == 'He said "dog"'
    _, kept, rejected = ingested(folder / "nan.jsonl", "table", tmp_path, Columns("text", "id"))
    assert texts(kept) == ["a dog", "a cat", "a tree"]
    assert [row["reason"] for row in rejected] == ["no_text"]
    with pytest.raises(InputError, match="there are 'a dog on a mat', 'http://x/1"):
        check_file(folder / "noheader.tsv", "table", Columns("text"))
    stated = Columns("1", header=False)
    _, kept, _ = ingested(folder / "noheader.tsv", "table", tmp_path, stated)
    assert texts(kept) == ["a dog on a mat", "a cat"]
    with pytest.raises(InputError, match=r"none of 4 .*its fields: 'id', 'caption'"):
        check_file(folder / "wrong_column.jsonl", "table", Columns("text"))
    _, kept, _ = ingested(folder / "list.parquet", "table", tmp_path, Columns("TEXT"))
    assert texts(kept) == ["a dog", "a puppy", "a cat"]
    with pytest.raises(InputError, match="column 'TEXT'"):
        check_file(folder / "binary.parquet", "table", Columns("TEXT"))


def test_coco_captions(tmp_path: Path) -> None:
    folder = CASES / "coco_captions"
    _, kept, _ = ingested(folder / "captions_float_image.json", "coco", tmp_path)
    assert [row["image_id"] for row in kept] == ["2", "1", "2"]
    _, kept, _ = ingested(folder / "captions_no_ann_id.json", "coco", tmp_path)
    assert texts(kept) == ["a dog 1", "a dog 2", "a dog 3"]
    _, kept, rejected = ingested(folder / "captions_raw_newline.json", "coco", tmp_path)
    assert texts(kept) == ["a cat"]
    assert [row["position"] for row in rejected] == [1]


def test_instances(tmp_path: Path) -> None:
    folder = CASES / "coco_instances"
    for number in range(1, 13):
        (tmp_path / f"{number:06d}.png").touch()

    def shown(name: str) -> list[tuple[str, ...]]:
        return [entry.classes for entry in read_image_set("coco", folder / name, tmp_path).entries]

    for name in ("base.json", "huge_ids.json", "nan_area.json"):
        assert shown(name) == [("dog",), ("cat",), ()]
    assert shown("null_category.json") == [(), ("cat",), ()]
    strays = read_image_set("coco", folder / "null_category.json", tmp_path).strays
    assert strays == ("annotation 1: field 'category_id' is not there or null: no category",)
    with pytest.raises(InputError, match=r"id 1 is of '000001\.png' and of '000003\.png'"):
        shown("dup_image_id.json")
    names = Names(load_vocabulary(ROOT / "tests/small/vocabulary.csv"))
    entries = read_image_set("coco", folder / "foreign.json", tmp_path).entries
    found = {label for entry in names.match(entries) for label in entry.classes}
    assert found == {"dog", "cat", "car", "boat", "tree", "house"}
    assert names.taken == {"Dog": ("dog",), "automobile": ("car",)}


def test_folders_and_voc(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    quoted = read_image_set("folder", CASES / "folder/newline_in_quote.csv", tmp_path).entries
    assert [(entry.file, entry.classes) for entry in quoted] == [
        ("a.jpg", ("dog", "cat")),
        ("b.jpg", ("dog",)),
    ]
    (one,) = read_image_set("folder", CASES / "folder/dot.csv", tmp_path).entries
    assert (one.file, one.classes) == ("a.jpg", ("dog", "cat"))
    # Annotations/000001.xml says that it is in GBK
    voc = CASES / "voc/gbk"
    found = read_image_set("voc2007", voc / "ImageSets/Main/test.txt", voc / "JPEGImages").entries
    assert [entry.classes for entry in found] == [("\u72d7",), ("cat",)]
    voc = CASES / "voc/lists_short"
    with pytest.raises(InputError, match=r"dog_test\.txt: no line for image '000002'"):
        read_image_set("voc2007", voc / "ImageSets/Main/test.txt", voc / "JPEGImages")


@pytest.mark.parametrize(("name", "form"), [("captions.csv", "table"), ("captions.json", "coco")])
def test_files_of_one_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, form: str
) -> None:
    monkeypatch.setenv("TAI_HOME", str(tmp_path))
    source = {"source": "s", "form": form, "text_column": "caption", "id_column": "key"}
    if form == "coco":
        source = {"source": "s", "form": form}
    paths = [f"same_name/*/{name}", f"same_name/../same_name/a/{name}"]
    profile = load_profile(
        str(ROOT / "tests/small/small.toml"),
        {
            "data": str(CASES),
            "vocabulary": "coco2014",
            "backbone.model": str(ROOT / "tests/small/tiny-clip.json"),
            "sources": [{**source, "path": path} for path in paths],
            "captions.templates": False,
        },
    )
    # the file that is named twice counts once
    corpora, _, choice = choose(profile)
    assert [corpus.counts["captions/kept"] for corpus in corpora] == [40, 40]
    assert choice.counts["captions/read"] == 80
    assert choice.counts["captions/duplicate"] == 0


def test_words_behind_the_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAI_HOME", str(tmp_path))
    path = str(CASES / "narratives/long.jsonl")
    profile = load_profile(
        str(ROOT / "tests/small/small.toml"),
        {
            "data": str(ROOT / "tests/small"),
            "vocabulary": "coco2014",
            "backbone.model": str(ROOT / "tests/small/tiny-clip.json"),
            "sources": [{"source": "n", "form": "narratives", "path": path}],
            "captions.templates": False,
        },
    )
    vocabulary = check_captions(profile)
    corpora = [ingest_captions.fn(*each) for each in caption_files(profile)]
    from tasks.labels.label import label_captions

    labels = [label_captions.fn(corpus, vocabulary) for corpus in corpora]
    choice = choose_captions.fn(profile, vocabulary, corpora, labels)
    assert choice.counts["captions/too_long"] == 40
    rows = [
        row
        for part in sorted(choice.folder.glob("part-*.parquet"))
        for row in pq.read_table(part).to_pylist()
    ]
    boats = [row["text"] for row in rows if "boat" in row["classes"]]
    assert boats == ["In the far background there is a boat."] * 40


def test_labels(tmp_path: Path) -> None:
    coco = load_vocabulary(builtin_vocabulary_path("coco2014"))
    rows = json.loads((CASES / "labels/coco2014.json").read_text(encoding="utf-8"))
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps({"id": n, **row}) + "\n" for n, row in enumerate(rows)))
    ingested(path, "table", tmp_path, Columns("text", "id"))
    write_labels([tmp_path / "corpus.parquet"], coco, tmp_path / "labels.parquet")
    found = {
        row["caption_id"]: set(row["classes"])
        for row in pq.read_table(tmp_path / "labels.parquet").to_pylist()
    }
    for number, row in enumerate(rows):
        named = found.get(f"s/t.jsonl/{number}", set())
        assert sorted(" ".join(named).split()) == sorted(row["classes"].split()), row


def test_pictures(tmp_path: Path) -> None:
    folder = CASES / "images"

    def pixels(name: str) -> Any:
        image = decode(folder / name)
        assert isinstance(image, Image.Image), image
        return np.asarray(image).astype(int)

    plain = pixels("00_plain.png")
    assert pixels("02_exif6.jpg").shape == plain.shape
    assert np.abs(pixels("02_exif6.jpg") - plain).mean() < 8
    for name in ("06_grey16.png", "08_float.tif"):
        assert 20 < pixels(name).mean() < 235
    # transparent is white
    assert pixels("09_rgba.png").max() == 255
    assert 0 < (pixels("13_black_icon_la.png") == 255).mean() < 1
    for name in ("RuntimeError_avif.avif", "called.jpg"):
        spoiled = tmp_path / name
        spoiled.write_bytes((folder / "RuntimeError_avif.avif").read_bytes())
        assert isinstance(decode(spoiled), str)


def test_odd_class_names(tmp_path: Path) -> None:
    found = draft(read_classes(CASES / "classes/odd2.txt"))
    (tmp_path / "odd2.csv").write_text(found.csv())
    assert load_vocabulary(tmp_path / "odd2.csv").classes == tuple(found.synonyms)
    assert set(found.left_out) == {"dog", "HotDog", "skis"}
