"""Class names of annotations as a vocabulary's: case, blanks, signs, synonyms; nothing by guess."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.images.entries import ImageEntry
from tasks.images.names import Names
from tasks.labels.vocabulary import Vocabulary, builtin_vocabulary_path, load_vocabulary

COCO = load_vocabulary(builtin_vocabulary_path("coco2014"))


def matched(vocabulary: Vocabulary, *classes: str) -> tuple[tuple[str, ...], Names]:
    names = Names(vocabulary)
    return names.match([ImageEntry("1", "1.jpg", classes)])[0].classes, names


@settings(max_examples=200)
@given(
    label=st.sampled_from(COCO.classes),
    case=st.sampled_from([str.upper, str.title, str.capitalize, str.lower]),
    joiner=st.sampled_from([" ", "_", "-", "  ", "\u00a0", "/"]),
    edge=st.sampled_from(["", " ", "\t"]),
)
def test_every_class_is_known_by_case_blanks_and_signs(
    label: str, case: type[str], joiner: str, edge: str
) -> None:
    name = edge + case(label).replace(" ", joiner) + edge  # type: ignore[operator]
    found, names = matched(COCO, name)
    assert found == (label,)
    assert not names.foreign
    assert names.taken == ({} if name == label else {name: (label,)})


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("automobile", ("car",)),
        ("automobiles", ("car",)),
        ("trafficlights", ("traffic light",)),
        ("firehydrant", ("fire hydrant",)),
        ("surfer", ("person", "surfboard")),
        ("dog, cat", ("dog", "cat")),
        ("tabby, cat, house cat", ("cat",)),
        ("unicorn", ("unicorn",)),
        ("hot", ("hot",)),
    ],
)
def test_synonyms_and_lists_of_names(name: str, classes: tuple[str, ...]) -> None:
    assert matched(COCO, name)[0] == classes


def test_what_was_taken_and_what_is_foreign_is_told(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("class,synonym\ncar,car\ncar,automobile\ndog,dog\n,hot dog\n")
    found, names = matched(load_vocabulary(path), "Dog", "automobile", "hot dog", "cars2", "zebra")
    assert found == ("dog", "car", "hot dog", "cars2", "zebra")
    assert names.told() == [
        "taken: 'Dog' as dog, 'automobile' as car",
        "shown, but no class of the vocabulary: 'cars2' (car?), 'hot dog', 'zebra'",
    ]


def test_every_image_is_matched() -> None:
    entries = [ImageEntry(str(number), f"{number}.jpg", ("Dog", "unicorn")) for number in range(3)]
    found = Names(COCO).match(entries)
    assert [entry.classes for entry in found] == [("dog", "unicorn")] * 3


def test_a_class_that_is_shown_is_not_ignored() -> None:
    entry = ImageEntry("1", "1.jpg", ("Dog",), ("dog", "CAT"))
    assert Names(COCO).match([entry]) == [ImageEntry("1", "1.jpg", ("dog",), ("cat",))]
