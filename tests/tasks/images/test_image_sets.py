"""Readers of image sets against hand-counted trees in the official layouts."""

import json
from pathlib import Path

import pytest

from tasks.errors import InputError
from tasks.images.image_sets import ImageEntry, read_image_set

NUS_FILES = ("actor\\0001_21.jpg", "actor\\0002_22.jpg", "sky\\0001_31.jpg")


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
    return read_image_set("voc2007", main / "test.txt", images)


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
        read_image_set(
            "voc2007", tmp_path / "ImageSets" / "Main" / "test.txt", tmp_path / "JPEGImages"
        )


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
    assert read_image_set("nuswide", nuswide(tmp_path, official=official), images) == [
        ImageEntry("actor/0001_21", "actor/0001_21.jpg", ()),
        ImageEntry("actor/0002_22", "actor/0002_22.jpg", ("sky",)),
        ImageEntry("sky/0001_31", "sky/0001_31.jpg", ("airport", "sky")),
    ]


def test_nuswide_lists_must_have_equal_lengths(tmp_path: Path) -> None:
    images = touch(tmp_path / "Flickr", "actor/0002_22.jpg")
    image_list = nuswide(tmp_path, official=False)
    (tmp_path / "TrainTestLabels" / "Labels_sky_Test.txt").write_text("0\n1\n")
    with pytest.raises(InputError, match=r"Labels_sky_Test\.txt: expected 3 lines"):
        read_image_set("nuswide", image_list, images)


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
    assert read_image_set("coco", path, images) == [
        ImageEntry("42", "COCO_val2014_000000000042.jpg", ("dog", "toothbrush")),
        ImageEntry("7", "b.jpg", ()),
    ]


def test_a_plain_folder_with_a_table_and_without(tmp_path: Path) -> None:
    images = touch(tmp_path / "mine", "b.PNG", "sub/a.jpeg", "notes.txt", "c.webp")
    table = tmp_path / "labels.csv"
    table.write_text('file,class\nsub/a.jpeg,dog\nb.PNG,\nsub/a.jpeg,"cat, big"\ngone.jpg,dog\n')
    assert read_image_set("folder", table, images) == [
        ImageEntry("sub/a.jpeg", "sub/a.jpeg", ("dog", "cat, big")),
        ImageEntry("b.PNG", "b.PNG", ()),
        ImageEntry("gone.jpg", "gone.jpg", ("dog",)),
    ]
    bare = read_image_set("folder", None, images)
    assert [entry.file for entry in bare] == ["b.PNG", "c.webp", "sub/a.jpeg"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("../secret.jpg,dog", "leaves its folder"),
        ("/etc/a.jpg,dog", "leaves its folder"),
        ("C:\\a.jpg,dog", "leaves its folder"),
        ("a.jpg", "line 2: expected a file and a class"),
        ("a.jpg,dog\nb.jpg", "line 3: expected a file and a class"),
        ('a.jpg,"dog', "broken CSV"),
        ("", "no image; expected at least one"),
        ("nowhere.jpg,dog", "none of the images is here"),
    ],
)
def test_hostile_and_broken_tables(tmp_path: Path, rows: str, message: str) -> None:
    touch(tmp_path / "mine", "a.jpg")
    (tmp_path / "labels.csv").write_text(f"file,class\n{rows}\n")
    with pytest.raises(InputError, match=message):
        read_image_set("folder", tmp_path / "labels.csv", tmp_path / "mine")
