"""Labels of hand-written sentences, and against a matcher that goes through words one by one."""

import json
import re
from collections import defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import InputError
from tasks.ingest import CORPUS, ingest_file
from tasks.label import write_labels
from tasks.vocabulary import Vocabulary, builtin_vocabulary_path, load_vocabulary

SHARED = Path(__file__).parents[3] / "shared" / "data" / "coco_mini" / "annotations"
COCO = load_vocabulary(builtin_vocabulary_path("coco2014"))
VOC = load_vocabulary(builtin_vocabulary_path("voc2007"))

SENTENCES = [
    ("A dog sleeps.", "dog"),
    ("Two puppies in a basket", "dog"),
    ("PUPPY!", "dog"),
    ("The doggy barks", "dog"),
    ("dog's tail", "dog"),
    ("the dogs' bowls", "dog, bowl"),
    ("dogs, cats and birds.", "dog, cat, bird"),
    ("A hot dog with mustard", "hot dog"),
    ("hot dogs on a grill", "hot dog"),
    ("a hot-dog stand", "hot dog"),
    ("A hotdog", "hot dog"),
    ("On a hot day, dog owners rest", "dog"),
    ("It is hot. Dog days.", "dog"),
    ("a red carpet", ""),
    ("a mail order catalog", ""),
    ("the cattle graze", "cow"),
    ("concatenate scattered", ""),
    ("Women and men", "person"),
    ("a woman's purse", "person, handbag"),
    ("three children playing", "person"),
    ("firemen and policemen", "person"),
    ("A human being", "person"),
    ("somebody's bike", "person, bicycle"),
    ("bicycles and cycles", "bicycle"),
    ("a motorbike", "motorcycle"),
    ("a motor bike", "motorcycle"),
    ("two motor-bikes", "motorcycle"),
    ("taxis and automobiles", "car"),
    ("rafts, dinghies and a row boat", "boat"),
    ("a sail-boat", "boat"),
    ("buses at dawn", "bus"),
    ("A bus stop", ""),
    ("Double-decker buses", "bus"),
    ("locomotives", "train"),
    ("training for a race", ""),
    ("an aeroplane above", "airplane"),
    ("planes overhead", "airplane"),
    ("traffic lights", "traffic light"),
    ("a fire truck near a fire hydrant", "truck, fire hydrant"),
    ("Stop sign ahead", "stop sign"),
    ("sheep and lambs", "sheep"),
    ("geese on a lake", "bird"),
    ("mice and keyboards", "mouse, keyboard"),
    ("A computer mouse", "mouse"),
    ("A teddy bear", "teddy bear"),
    ("a polar bear", "bear"),
    ("teddy and bears", "bear, teddy bear"),
    ("He bears a load", "bear"),
    ("skiing downhill", "skis"),
    ("cross-country skiing", "skis"),
    ("surfing all day", "surfboard"),
    ("baseball bats", "baseball bat"),
    ("a bat in a cave", ""),
    ("a tennis racquet and tennis balls", "sports ball, tennis racket"),
    ("wine glasses", "wine glass"),
    ("a glass of wine", "wine glass"),
    ("glasses of wine", "wine glass"),
    ("knives, forks and spoons", "fork, knife, spoon"),
    ("potted plants", "potted plant"),
    ("a dining-room table", "dining table"),
    ("loaves on the tables", "dining table"),
    ("a table cloth", ""),
    ("TV sets", "tv"),
    ("cell phones and an iPhone", "cell phone"),
    ("doughnuts", "donut"),
    ("a pair of scissors", "scissors"),
    ("\u201cDog\u201d, she said", "dog"),
    ("dog/cat", "dog, cat"),
    ("dog_cat", "dog, cat"),
    ("nothing at all", ""),
    ("\u5b57 dog \U0001f415", "dog"),
]


def label(folder: Path, vocabulary: Vocabulary, texts: list[str], name: str = "l") -> list[dict]:
    ids = [str(i) for i in range(len(texts))]
    pq.write_table(pa.table({"caption_id": ids, "text": texts}), folder / "c.parquet")
    counts = write_labels([folder / "c.parquet"], vocabulary, folder / f"{name}.parquet")
    rows = pq.read_table(folder / f"{name}.parquet").to_pylist()
    assert counts == {
        "captions/read": len(texts),
        "captions/labelled": len(rows),
        "captions/without_class": len(texts) - len(rows),
        "labels": sum(len(row["classes"]) for row in rows),
    }
    return rows


def test_there_are_sixty_sentences_or_more() -> None:
    assert len({text for text, _ in SENTENCES}) >= 60


def test_sentences(tmp_path: Path) -> None:
    found = {
        int(row["caption_id"]): row["classes"]
        for row in label(tmp_path, COCO, [text for text, _ in SENTENCES])
    }
    wrong = {
        text: (found.get(i, []), expected)
        for i, (text, expected) in enumerate(SENTENCES)
        if ", ".join(sorted(found.get(i, [])))
        != ", ".join(sorted(filter(None, expected.split(", "))))
    }
    assert not wrong


def test_a_hot_dog_is_no_dog_where_it_is_no_class(tmp_path: Path) -> None:
    rows = label(tmp_path, VOC, ["A hot dog", "A hot dog and a dog"])
    assert [(row["caption_id"], row["classes"]) for row in rows] == [("1", ["dog"])]


def test_spans_are_where_the_words_stand(tmp_path: Path) -> None:
    text = "\U0001f415 Two Motor-Bikes, a woman's cat"
    (row,) = label(tmp_path, COCO, [text])
    assert [(s["class"], text[s["start"] : s["end"]]) for s in row["spans"]] == [
        ("motorcycle", "Motor-Bikes"),
        ("person", "woman"),
        ("cat", "cat"),
    ]
    assert row["classes"] == ["person", "motorcycle", "cat"]


@pytest.mark.parametrize(("name", "classes"), [("voc2007", 20), ("coco2014", 80), ("nuswide", 81)])
def test_vocabularies(name: str, classes: int) -> None:
    vocabulary = load_vocabulary(builtin_vocabulary_path(name))
    assert len(vocabulary.classes) == classes
    assert len(set(vocabulary.prompt_names)) == classes


@pytest.mark.skipif(not SHARED.is_dir(), reason="the development data is not here")
def test_real_captions_against_the_images_objects(tmp_path: Path) -> None:
    instances = json.loads((SHARED / "instances_train2017.json").read_text())
    names = {c["id"]: c["name"] for c in instances["categories"]}
    assert set(names.values()) == set(COCO.classes)
    true = defaultdict(set)
    for entry in instances["annotations"]:
        true[str(entry["image_id"])].add(names[entry["category_id"]])
    ingest_file(SHARED / "captions_train2017.json", "coco", "coco", "train2017", tmp_path)
    write_labels([tmp_path / CORPUS], COCO, tmp_path / "l.parquet")
    found = {
        r["caption_id"]: set(r["classes"])
        for r in pq.read_table(tmp_path / "l.parquet").to_pylist()
    }
    hits = given_ = there = 0
    for row in pq.read_table(tmp_path / CORPUS).to_pylist():
        labels, objects = found.get(row["caption_id"], set()), true[row["image_id"]]
        hits, given_, there = (
            hits + len(labels & objects),
            given_ + len(labels),
            there + len(objects),
        )
    assert hits / given_ >= 0.94
    assert hits / there >= 0.35


WORDS = ["dog", "hot", "cat", "house", "fire", "of"]
PHRASES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)


def brute_force(forms: list[tuple[tuple[str, ...], str | None]], text: str) -> set[str]:
    """Longest first, then leftmost; no word is taken twice."""
    words = re.findall(r"\w+|[^\w\s'-]+", text.lower())
    taken: set[int] = set()
    found = set()
    for length in (5, 4, 3, 2, 1):
        for start in range(len(words) - length + 1):
            places = set(range(start, start + length))
            for form, owner in forms:
                if form == tuple(words[start : start + length]) and not places & taken:
                    taken |= places
                    found.add(owner)
    return {owner for owner in found if owner}


@settings(max_examples=12, deadline=None)
@given(
    phrases=st.lists(PHRASES, min_size=1, max_size=5, unique=True),
    texts=st.lists(
        st.lists(st.sampled_from([*WORDS, "dogs", ",", "-", "x"]), max_size=8),
        min_size=1,
        max_size=8,
    ),
)
def test_labels_are_those_of_a_word_by_word_matcher(
    tmp_path_factory: pytest.TempPathFactory, phrases: list[str], texts: list[list[str]]
) -> None:
    folder = tmp_path_factory.mktemp("labels")
    rows = [f"{'' if i % 3 == 2 else f'c{i}'},{phrase}" for i, phrase in enumerate(phrases)]
    (folder / "v.csv").write_text("class,synonym\n" + "\n".join(rows) + "\n")
    try:
        vocabulary = load_vocabulary(folder / "v.csv")
    except InputError:  # two phrases whose joined forms meet
        return
    classes = {None: None} | dict(enumerate(vocabulary.classes))
    forms = [
        (tuple(row["words"]), classes[row["class_index"]]) for row in vocabulary.forms.to_pylist()
    ]
    joined = [" ".join(words) for words in texts]
    found = {r["caption_id"]: set(r["classes"]) for r in label(folder, vocabulary, joined)}
    for i, text in enumerate(joined):
        assert found.get(str(i), set()) == brute_force(forms, text), text
    assert label(folder, vocabulary, joined, "again") is not None
    assert (folder / "l.parquet").read_bytes() == (folder / "again.parquet").read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("class,synonym\ndog,pup\ncat,pup\n", r"line 3.*'pup'.*'dog' \(line 2\).*'cat' \(line 3\)"),
        ("class,synonym\n", "no class"),
        ("name,word\ndog,pup\n", "line 1"),
        ("class,synonym\ndog\n", "line 2"),
        ("class,synonym\ndog,\n", "line 2"),
        ("class,synonym\ndog,a b c d e f\n", "line 2.*at most 5"),
        ("class,synonym\ndog,p\0p\n", "line 2.*NUL"),
    ],
)
def test_a_vocabulary_that_is_none_says_where(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "v.csv").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        load_vocabulary(tmp_path / "v.csv")
    assert str(tmp_path / "v.csv") in str(caught.value)
