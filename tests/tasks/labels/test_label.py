"""Labels of hand-written sentences, and against a matcher that goes through words one by one."""

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sql
from tasks.checks import run_checks
from tasks.corpus.ingest import CORPUS, ingest_file
from tasks.errors import DataTestError, InputError
from tasks.labels.label import CHECKS, write_labels
from tasks.labels.vocabulary import Vocabulary, builtin_vocabulary_path, load_vocabulary

SHARED = Path(__file__).parents[4] / "shared" / "data" / "coco_mini" / "annotations"
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
    ("A passenger train", "train"),
    ("passengers board the train", "person, train"),
    ("an orange pizza cutter", ""),
    ("an orange cat on a bus", "cat, bus"),
    ("He ate an orange.", "orange"),
    ("orange slices and oranges", "orange"),
    ("a bed of flowers", ""),
    ("a flat bed and a bed", "bed"),
    ("a bike shaped cutter", ""),
    ("a bear-shaped cake", "cake"),
    ("A tennis player", "person, tennis racket"),
    ("three surfers, a skier", "person, surfboard, skis"),
    ("He swings a bat", "baseball bat"),
    ("a baby elephant and its mother", "elephant"),
    ("a baby in a crib", "person"),
    ("a giraffe family", "giraffe"),
    ("a family of four", ""),
    ("the family eats pizza", "person, pizza"),
    ("a subway car", "train"),
    ("cars on a road", "car"),
    ("a toy truck", ""),
    ("a stuffed giraffe", ""),
    ("stuffed animals", "teddy bear"),
    ("a statue of a horse", ""),
    ("a picture of a horse", "horse"),
    ("a road with no cars", ""),
    ("a kitchen without a stove", ""),
    ("a cement bowl", ""),
    ("men's room", ""),
    ("a pitcher of water", ""),
    ("a pitcher throws the ball", "person, sports ball, baseball glove"),
    ("an apple computer and an apple", "apple"),
    ("dog_cat", "dog, cat"),
    ("nothing at all", ""),
    ("\u5b57 dog \U0001f415", "dog"),
]


def label(folder: Path, vocabulary: Vocabulary, texts: list[str], name: str = "l") -> list[dict]:
    ids = [str(i) for i in range(len(texts))]
    pq.write_table(pa.table({"caption_id": ids, "text": texts}), folder / "c.parquet")
    counts, _ = write_labels([folder / "c.parquet"], vocabulary, folder / f"{name}.parquet")
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
    assert hits / given_ >= 0.955
    assert hits / there >= 0.37


WORDS = ["dog", "hot", "cat", "house", "fire", "of"]
PHRASES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=2).map(" ".join)
SIDES = st.sampled_from(["", "", "", "[hot]", "[hot|cat]", "[_]"])
ROWS = st.one_of(
    st.builds("{} {} {}".format, SIDES, PHRASES, st.one_of(SIDES, st.just("[.]"))).map(str.strip),
    st.sampled_from(["[hot] *", "* [of]", "[fire] [of] *", "dog [*]", "[*] house"]),
)


def stands(words: list[str], at: int, wanted: str) -> bool:
    word = words[at] if 0 <= at < len(words) else "."
    is_word = re.match(r"\w", word) is not None
    return {"_": is_word, ".": not is_word and at >= 0}.get(wanted, word == wanted)


def brute_force(forms: list[dict[str, Any]], text: str) -> tuple[set[int], set[tuple[int, int]]]:
    """Classes and token spans, going through the words one by one, the longest form first."""
    words = re.findall(r"\w+|[^\w\s'-]+", text.lower())
    places = []
    before, behind = set(), set()
    for form in forms:
        length = len(form["words"])
        for start in range(len(words)):
            if all(stands(words, start + i, w) for i, w in enumerate(form["words"])):
                first = start + form["words_before"]
                last = start + length - form["words_behind"] - 1
                if first <= last:
                    rank = 2 * length - form["words"].count("_")
                    places.append((-rank, first, form["form"], last, form))
                elif form["words_before"]:
                    before.add(start + length)
                else:
                    behind.add(start - 1)
    taken: set[int] = set()
    named = []
    for _, first, _, last, form in sorted(places, key=lambda place: place[:3]):
        if not taken & set(range(first, last + 1)):
            taken |= set(range(first, last + 1))
            if form["class_indices"] and first not in before and last not in behind:
                named.append((first, last, form))
    firsts, lasts = {one[0] for one in named}, {one[1] for one in named}
    standing = [
        one
        for one in named
        if not (one[2]["yields_to_next"] and one[1] + 1 in firsts)
        and not (one[2]["yields_to_previous"] and one[0] - 1 in lasts)
    ]
    classes = {index for one in standing for index in one[2]["class_indices"]}
    return classes, {(first, last) for first, last, _ in standing}


@settings(max_examples=10)
@given(
    phrases=st.lists(ROWS, min_size=1, max_size=6, unique=True),
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
    owners = ["c0", "", "c1 + c0", "c1"]
    rows = ["c0,dog", "c1,cat", "c1,house"]
    rows += [
        f"{'' if '*' in phrase else owners[i % 4]},{phrase}" for i, phrase in enumerate(phrases)
    ]
    (folder / "v.csv").write_text("class,synonym\n" + "\n".join(rows) + "\n")
    try:
        vocabulary = load_vocabulary(folder / "v.csv")
    except InputError:  # two phrases that meet, a row that stands there twice
        return
    forms = vocabulary.forms.to_pylist()
    joined = [" ".join(words) for words in texts]
    found = {r["caption_id"]: r for r in label(folder, vocabulary, joined)}
    for i, text in enumerate(joined):
        classes, places = brute_force(forms, text)
        row = found.get(str(i), {"classes": [], "spans": []})
        assert set(row["classes"]) == {vocabulary.classes[index] for index in classes}, text
        tokens = list(re.finditer(r"\w+|[^\w\s'-]+", text))
        spans = {(tokens[a].start(), tokens[b].end()) for a, b in places}
        assert {(span["start"], span["end"]) for span in row["spans"]} == spans, text
    assert label(folder, vocabulary, joined, "again") is not None
    assert (folder / "l.parquet").read_bytes() == (folder / "again.parquet").read_bytes()


ODD = st.text(alphabet="ab \u00e9\u0130\u4e2d1,.-'\u2019_\"!\u00a0\u0301\U0001f415", max_size=24)


@settings(max_examples=15)
@given(texts=st.lists(ODD, min_size=20, max_size=60))
def test_plain_captions_fall_into_the_same_tokens_as_by_the_pattern(texts: list[str]) -> None:
    with duckdb.connect() as connection:
        connection.execute(sql.query("labels/macros"))
        connection.register("captions", pa.table({"text": texts}))
        rows = connection.execute(
            """
            select
                words(text, is_plain(text)), words(text, false), pieces(text),
                lengths(text, is_plain(text), words(text, is_plain(text)))
            from captions
            """
        ).fetchall()
    for text, (fast, slow, pieces, lengths) in zip(texts, rows, strict=True):
        assert fast == slow, text
        assert lengths == [len(piece) + (i == 0) for i, piece in enumerate(pieces)], text
        found = re.findall(r"[^\W_]+|[^\w\s\-'\u2019\"]+", text.lower())
        if text.isascii():
            assert slow == [word if word[0].isalnum() else "." for word in found], text


def test_workers_and_batches_change_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    texts = [text for text, _ in SENTENCES] * 2
    whole = label(tmp_path, COCO, texts, "whole")
    monkeypatch.setattr("tasks.labels.label.CAPTIONS_PER_BATCH", 60)
    write_labels([tmp_path / "c.parquet"], COCO, tmp_path / "parts.parquet", workers=3)
    assert pq.read_table(tmp_path / "parts.parquet").to_pylist() == whole


def test_a_data_test_says_what_is_wrong_with_examples() -> None:
    with duckdb.connect() as connection:
        ids = [f"c{i}" for i in "abcd"]
        texts = pa.table({"row": range(4), "caption_id": ids, "text": ["a dog"] * 4})
        connection.register("captions", texts)
        connection.register("classes", pa.table({"class": ["cat"], "class_index": [0]}))

        def label_as(**changes: list[int]) -> None:
            columns = {"row": [0, 1, 2, 3], "class_index": [0] * 4, "form": [0] * 4}
            columns |= {"span_start": [2] * 4, "span_end": [5] * 4, "text_length": [5] * 4}
            connection.register("labels", pa.table(columns | changes))

        label_as()
        run_checks(connection, CHECKS)
        label_as(class_index=[7] * 4)
        with pytest.raises(DataTestError, match=r"4 rows.*not in the vocabulary.*'ca'.*'cc'") as e:
            run_checks(connection, ["labels/checks/classes_known"])
        assert "'cd'" not in str(e.value)
        label_as(span_end=[6, 5, 2, 5])
        with pytest.raises(DataTestError, match=r"2 rows.*'ca'.*'cc'"):
            run_checks(connection, ["labels/checks/spans_inside_text"])
        # two words with a letter in common, and one class named twice by the same words
        label_as(row=[0, 0, 1, 1], span_start=[0, 4, 2, 2], form=[0, 1, 2, 2])
        with pytest.raises(DataTestError, match=r"2 rows.*'ca'.*'cb'"):
            run_checks(connection, ["labels/checks/spans_apart"])
        label_as(row=[0, 1, 3, 2])
        with pytest.raises(DataTestError, match=r"1 rows.*out of order.*'cc'"):
            run_checks(connection, ["labels/checks/spans_apart"])
        label_as(row=[0, 0, 1, 1], class_index=[0, 1, 0, 1])
        run_checks(connection, ["labels/checks/spans_apart"])


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
        ("class,synonym\ndog,hot [a] dog\n", "line 2.*in front or behind"),
        ("class,synonym\ndog,[a b] dog\n", "line 2.*one word, or several"),
        ("class,synonym\ndog,[a] *\n", "line 2.*without one"),
        ("class,synonym\ndog,dog\n,[a] * [b]\n", "line 3.*expected `\\*` as in"),
        ("class,synonym\ndog,dog\n,[_] *\n", "line 3.*expected a word"),
        ("class,synonym\ndog,dog\n,cat [*]\n", "line 3.*synonym with a class"),
        ("class,synonym\ndog,dog\ndog + cat,pup\n", "line 3.*a row of their own"),
        (
            "class,synonym\ndog,[a|b|c|d|e|f|g] [a|b|c|d|e|f|g] [a|b|c|d|e|f|g] "
            "[a|b|c|d|e|f|g] x\n",
            "line 2.*more than 2000 forms",
        ),
    ],
)
def test_a_vocabulary_that_is_none_says_where(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "v.csv").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        load_vocabulary(tmp_path / "v.csv")
    assert str(tmp_path / "v.csv") in str(caught.value)
