"""CSVs with a column per class, as people keep them."""

from pathlib import Path

import pytest

from tasks.errors import InputError
from tasks.images.annotations import read_image_set
from tasks.images.entries import ImageEntry


def read(folder: Path, text: str) -> list[ImageEntry]:
    (folder / "a.jpg").write_bytes(b"")
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    return read_image_set("folder", folder / "labels.csv", folder).entries


@pytest.mark.parametrize(
    "text",
    [
        "file,dog,Fire Hydrant,cat\na.jpg,1,0,\nb.jpg,,1,-1\n",
        "file;dog;Fire Hydrant;cat\r\na.jpg;1.0;0.0;NaN\r\nb.jpg;?;1.0;\r\n",
        # as pandas writes it, with numbers of rows; and with the file last
        ",dog,Fire Hydrant,cat,File\n0,True,False,,a.jpg\n1,,True,n/a,b.jpg\n",
    ],
)
def test_marks_are_shown_not_shown_or_unknown(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == [
        ImageEntry("a.jpg", "a.jpg", ("dog",), ("cat",)),
        ImageEntry("b.jpg", "b.jpg", ("Fire Hydrant",), ("dog", "cat")),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("file,dog\na.jpg,2\n", r"labels.csv, line 2: field 'dog': expected 1 .* got '2'"),
        ("file,dog,Dog\na.jpg,1,0\n", r"line 1: two columns are called 'dog'"),
        ("file,dog\na.jpg,1\n./a.jpg,0\n", r"line 3: image 'a.jpg' has a row already"),
        ("file,dog\na.jpg\n", r"line 2: expected a file and a dog \(2 fields\), got 1"),
        ("file,dog\n,1\n", r"line 2: field 'file' is empty"),
        ("file\na.jpg\n", r"line 1: expected the columns file and class"),
    ],
)
def test_what_is_no_mark_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read(tmp_path, text)
