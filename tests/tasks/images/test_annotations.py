"""Readers of image sets against hand-counted trees in the official layouts."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import InputError
from tasks.images.annotations import read_image_set
from tasks.images.entries import ImageEntry

NUS_FILES = ("actor\\0001_21.jpg", "actor\\0002_22.jpg", "sky\\0001_31.jpg")


def read(form: str, annotations: Path | None, images: Path) -> list[ImageEntry]:
    return read_image_set(form, annotations, images).entries


def touch(folder: Path, *files: str) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"")
    return folder


def annotation(*objects: tuple[str, int]) -> str:
    found = "".join(
        f"<object><name>{name}</name><pose>Left</pose><difficult>{difficult}</difficult>"
        "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
        for name, difficult in objects
    )
    return f"<annotation><folder>VOC2007</folder><size><width>9</width></size>{found}</annotation>"


def voc(root: Path, *, with_lists: bool) -> list[ImageEntry]:
    """Three images; a difficult dog beside a plain one, and a difficult cat alone."""
    main = root / "ImageSets" / "Main"
    images = touch(root / "JPEGImages", "000001.jpg", "000002.jpg", "000004.jpg")
    touch(main, "test.txt")
    (main / "test.txt").write_text("000001\n000002\n000004\n")
    if with_lists:
        (main / "dog_test.txt").write_text("000001  1\n000002  1\n000004 -1\n")
        (main / "cat_test.txt").write_text("000001 -1\n000002 -1\n000004  0\n")
        # another split's lists are no business of this one's
        (main / "dog_trainval.txt").write_text("000009  1\n")
    else:
        for image, found in {
            "000001": annotation(("dog", 0)),
            "000002": annotation(("dog", 1), ("dog", 0)),
            "000004": annotation(("cat", 1)),
        }.items():
            touch(root / "Annotations", f"{image}.xml").joinpath(f"{image}.xml").write_text(found)
    return read("voc2007", main / "test.txt", images)


@pytest.mark.parametrize("with_lists", [True, False])
def test_voc_by_its_lists_and_by_its_annotations(tmp_path: Path, with_lists: bool) -> None:
    assert voc(tmp_path, with_lists=with_lists) == [
        ImageEntry("000001", "000001.jpg", ("dog",)),
        ImageEntry("000002", "000002.jpg", ("dog",)),
        ImageEntry("000004", "000004.jpg", (), ("cat",)),
    ]


def test_an_entity_bomb_is_refused(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>'
    voc(tmp_path, with_lists=False)
    (tmp_path / "Annotations" / "000002.xml").write_text(bomb)
    with pytest.raises(InputError, match=r"000002\.xml: not a PASCAL VOC annotation"):
        read("voc2007", tmp_path / "ImageSets" / "Main" / "test.txt", tmp_path / "JPEGImages")


def nuswide(root: Path, *, official: bool) -> Path:
    truth = root / "Groundtruth" if official else root
    concepts = root / "ConceptsList" if official else root
    lists = {
        root / "ImageList" / "TestImagelist.txt": "\r\n".join(NUS_FILES) + "\r\n",
        concepts / "Concepts81.txt": "airport\nsky\n",
        truth / "TrainTestLabels" / "Labels_airport_Test.txt": "0\n0\n1\n",
        truth / "TrainTestLabels" / "Labels_sky_Test.txt": "0\n1\n1\n",
        truth / "TrainTestLabels" / "Labels_sky_Train.txt": "1\n",
    }
    for path, content in lists.items():
        touch(path.parent, path.name)
        path.write_text(content)
    return root / "ImageList" / "TestImagelist.txt"


@pytest.mark.parametrize("official", [True, False])
def test_nuswide_by_its_lists(tmp_path: Path, official: bool) -> None:
    # one of the three images was not to be had any more: it stays in the set
    images = touch(tmp_path / "Flickr", "actor/0002_22.jpg", "sky/0001_31.jpg")
    assert read("nuswide", nuswide(tmp_path, official=official), images) == [
        ImageEntry("actor/0001_21", "actor/0001_21.jpg", ()),
        ImageEntry("actor/0002_22", "actor/0002_22.jpg", ("sky",)),
        ImageEntry("sky/0001_31", "sky/0001_31.jpg", ("airport", "sky")),
    ]


def test_nuswide_lists_must_have_equal_lengths(tmp_path: Path) -> None:
    images = touch(tmp_path / "Flickr", "actor/0002_22.jpg")
    image_list = nuswide(tmp_path, official=False)
    (tmp_path / "TrainTestLabels" / "Labels_sky_Test.txt").write_text("0\n1\n")
    with pytest.raises(InputError, match=r"Labels_sky_Test\.txt: expected 3 lines"):
        read("nuswide", image_list, images)


def test_coco_with_and_without_objects(tmp_path: Path) -> None:
    images = touch(tmp_path / "val2014", "COCO_val2014_000000000042.jpg", "b.jpg")
    content = {
        "images": [
            {"id": 42, "file_name": "COCO_val2014_000000000042.jpg"},
            {"id": 7, "file_name": "b.jpg"},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 90, "name": "toothbrush"}],
        "annotations": [
            {"image_id": 42, "category_id": 90, "iscrowd": 0},
            {"image_id": 42, "category_id": 18, "iscrowd": 1},
            {"image_id": 42, "category_id": 18, "iscrowd": 0},
        ],
    }
    path = tmp_path / "instances_val2014.json"
    path.write_text(json.dumps(content))
    assert read("coco", path, images) == [
        ImageEntry("42", "COCO_val2014_000000000042.jpg", ("dog", "toothbrush")),
        ImageEntry("7", "b.jpg", ()),
    ]


def test_a_plain_folder_with_a_table_and_without(tmp_path: Path) -> None:
    images = touch(tmp_path / "mine", "b.PNG", "sub/a.jpeg", "notes.txt", "c.webp")
    table = tmp_path / "labels.csv"
    table.write_text('file,class\nsub/a.jpeg,dog\nb.PNG,\nsub/a.jpeg,"cat, big"\ngone.jpg,dog\n')
    assert read("folder", table, images) == [
        ImageEntry("sub/a.jpeg", "sub/a.jpeg", ("dog", "cat, big")),
        ImageEntry("b.PNG", "b.PNG", ()),
        ImageEntry("gone.jpg", "gone.jpg", ("dog",)),
    ]
    bare = read("folder", None, images)
    assert [entry.file for entry in bare] == ["b.PNG", "c.webp", "sub/a.jpeg"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("../secret.jpg,dog", "leaves its folder"),
        ("/etc/a.jpg,dog", "leaves its folder"),
        ("C:\\a.jpg,dog", "leaves its folder"),
        ("a.jpg", "line 2: expected a file and a class"),
        ("a.jpg,dog\nb.jpg", "line 3: expected a file and a class"),
        ('"a.jpg","dog\ncat"\n,dog', "line 4: field 'file' is empty"),
        ("a.jpg,dog\nb.jpg,\x00\xff", "line 3: not UTF-8"),
        ('a.jpg,"dog', "broken CSV"),
        ("", "no image; expected at least one"),
        ("nowhere.jpg,dog", "none of the images is here"),
    ],
)
def test_hostile_and_broken_tables(tmp_path: Path, rows: str, message: str) -> None:
    touch(tmp_path / "mine", "a.jpg")
    (tmp_path / "labels.csv").write_text(f"file,class\n{rows}\n", encoding="latin-1")
    with pytest.raises(InputError, match=message):
        read("folder", tmp_path / "labels.csv", tmp_path / "mine")


FILES = ("a.jpg", "sub/b c.png", "sub/deep/\u72d7.webp")
CLASSES = st.sampled_from(["dog", "hot dog", "tv, flat", "Caf\u00e9", "\u72d7"])


@settings(max_examples=60)
@given(
    rows=st.lists(st.tuples(st.sampled_from(FILES), st.lists(CLASSES, max_size=3)), min_size=1),
    delimiter=st.sampled_from(",;\t|"),
    # with lone \r as end, Python 3.11's writer leaves a line break bare where it may
    form=st.sampled_from(
        [(csv.QUOTE_ALL, "\r"), (csv.QUOTE_ALL, "\n"), (csv.QUOTE_MINIMAL, "\r\n")]
    ),
    between=st.sampled_from(["\n", ";", "|", " ; ", "\r\n"]),
    ways=st.lists(st.sampled_from(["{}", "./{}", " {} ", ".//{}", "windows"]), min_size=1),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    is_packed=st.booleans(),
)
def test_tables_of_any_dialect(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, list[str]]],
    delimiter: str,
    form: tuple[Any, str],
    between: str,
    ways: list[str],
    encoding: str,
    is_packed: bool,
) -> None:
    folder = tmp_path_factory.mktemp("set")
    touch(folder, *FILES)
    expected: dict[str, list[str]] = {}
    with (folder / "t.csv").open("w", encoding=encoding, newline="") as file:
        sheet = csv.writer(file, delimiter=delimiter, quoting=form[0], lineterminator=form[1])
        sheet.writerow(["Class", "more", "file"])
        for place, (name, classes) in enumerate(rows):
            way = ways[place % len(ways)]
            written = name.replace("/", "\\") if way == "windows" else way.format(name)
            sheet.writerow([between.join(classes), "x\ny", written])
            shown = expected.setdefault(name, [])
            shown += [c for c in dict.fromkeys(classes) if c not in shown]
    if is_packed:
        (folder / "t.csv").write_bytes(gzip.compress((folder / "t.csv").read_bytes()))
    assert {
        entry.file: list(entry.classes) for entry in read("folder", folder / "t.csv", folder)
    } == expected


def test_a_class_list_must_have_every_image(tmp_path: Path) -> None:
    voc(tmp_path, with_lists=True)
    main = tmp_path / "ImageSets" / "Main"
    (main / "dog_test.txt").write_text("000001  1\n000004 -1\n")
    with pytest.raises(InputError, match=r"dog_test\.txt: no line for image '000002' \(1 of 3"):
        read("voc2007", main / "test.txt", tmp_path / "JPEGImages")


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("gbk", "\u72d7"),
        ("gb2312", "\u72d7"),
        ("big5", "\u72d7"),
        ("shift_jis", "\u72ac"),
        ("euc-kr", "\uac1c"),
        ("windows-1251", "\u0441\u043e\u0431\u0430\u043a\u0430"),
        ("iso-8859-1", "Caf\u00e9"),
        ("utf-16", "\u72d7"),
        ("utf-8", "\u72d7"),
        ("utf-8-sig", "\u72d7"),
    ],
)
@pytest.mark.parametrize("space", ["", ' xmlns="http://example.org/voc"'])
def test_annotations_in_any_encoding(tmp_path: Path, encoding: str, name: str, space: str) -> None:
    voc(tmp_path, with_lists=False)
    said = encoding.removesuffix("-sig")
    text = annotation((name, 0), ("cat", 1)).replace("<annotation>", f"<annotation{space}>")
    path = tmp_path / "Annotations" / "000002.xml"
    path.write_bytes(f'<?xml version="1.0" encoding="{said}"?>\r\n{text}'.encode(encoding))
    images = tmp_path / "JPEGImages"
    found = read("voc2007", tmp_path / "ImageSets" / "Main" / "test.txt", images)
    assert found[1] == ImageEntry("000002", "000002.jpg", (name,), ("cat",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'<?xml version="1.0" encoding="gbk"?><annotation>\xff\xff', "not gbk text"),
        (b'<?xml version="1.0" encoding="rot13"?><annotation/>', "encoding 'rot13' is not known"),
        (b'<?xml version="1.0" encoding="klingon"?><annotation/>', "'klingon' is not known"),
        (b"<annotation>\xb9\xb7</annotation>", "not a PASCAL VOC annotation"),
        (b"<annotation><object>", "not a PASCAL VOC annotation"),
        (b"", "not a PASCAL VOC annotation"),
        (b"<annotation><object><name> </name></object></annotation>", "object 1: field 'name'"),
    ],
)
def test_broken_annotations_are_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    voc(tmp_path, with_lists=False)
    (tmp_path / "Annotations" / "000002.xml").write_bytes(content)
    with pytest.raises(InputError, match=rf"000002\.xml: .*{message}") as caught:
        read("voc2007", tmp_path / "ImageSets" / "Main" / "test.txt", tmp_path / "JPEGImages")
    assert "codec" not in str(caught.value)
    assert "Forbidden" not in str(caught.value)


def test_voc_images_of_other_kinds_and_with_blanks(tmp_path: Path) -> None:
    images = touch(tmp_path / "JPEGImages", "my photo 1.PNG", "2.jpg", "2.png")
    main = touch(tmp_path / "ImageSets" / "Main", "val.txt")
    (main / "val.txt").write_text("my photo 1\r\n\r\n2\r\n")
    (main / "dog_val.txt").write_text("my photo 1\t1\n2   -1\n")
    assert read("voc2007", main / "val.txt", images) == [
        ImageEntry("my photo 1", "my photo 1.PNG", ("dog",)),
        ImageEntry("2", "2.jpg", ()),
    ]


def test_nuswide_lines_that_are_no_mark_are_named(tmp_path: Path) -> None:
    images = touch(tmp_path / "Flickr", "actor/0002_22.jpg")
    image_list = nuswide(tmp_path, official=False)
    for content, message in (("0\n01\n", "line 2"), ("0\n\n\xff\n1\n1\n", "line 3")):
        path = tmp_path / "TrainTestLabels" / "Labels_sky_Test.txt"
        path.write_text(content, encoding="latin-1")
        with pytest.raises(InputError, match=rf"Labels_sky_Test\.txt, {message}"):
            read("nuswide", image_list, images)
