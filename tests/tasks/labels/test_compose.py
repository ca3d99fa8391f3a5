"""Composed captions: what they say is what they are labelled with, by the seed, up to a count."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.doors import check_captions
from tasks.corpus.ingest import CORPUS
from tasks.corpus.readers import is_composed
from tasks.errors import InputError
from tasks.labels.compose import COMPOSED, Together, compose, compose_captions, together
from tasks.labels.label import LABELS, write_labels
from tasks.labels.sentences import Noun, nouns_of
from tasks.labels.vocabulary import builtin_vocabulary_path, load_vocabulary
from tasks.profile import load_profile
from tests.tasks.road import choose

SMALL = "tests/small/small.toml"
COMPOSES = {"source": "made", "form": "composed", "at_least": 90}


def labels_of(texts: list[str], vocabulary: Path, folder: Path) -> list[list[str]]:
    """Classes by the labeller, of each text."""
    ids = [f"{number:06d}" for number in range(len(texts))]
    pq.write_table(pa.table({"caption_id": ids, "text": texts}), folder / "texts.parquet")
    write_labels([folder / "texts.parquet"], load_vocabulary(vocabulary), folder / "found.parquet")
    rows = {row["caption_id"]: row for row in pq.read_table(folder / "found.parquet").to_pylist()}
    return [rows[name]["classes"] if name in rows else [] for name in ids]


@pytest.mark.parametrize("name", ["voc2007", "coco2014", "nuswide", "demo"])
def test_from_the_vocabulary_alone_every_class_is_topped_up(name: str, tmp_path: Path) -> None:
    path = builtin_vocabulary_path(name)
    vocabulary = load_vocabulary(path)
    none = [0] * len(vocabulary.classes)
    texts, short = compose(vocabulary, none, Together(), 25, 0, tmp_path)
    assert not short
    assert len(set(texts)) == len(texts)
    counted = Counter(label for found in labels_of(texts, path, tmp_path) for label in found)
    assert min(counted[label] for label in vocabulary.classes) >= 25
    # rare ones first: none gets many more than it lacks
    assert max(counted.values()) <= 60
    again, _ = compose(vocabulary, none, Together(), 25, 0, tmp_path)
    other, _ = compose(vocabulary, none, Together(), 25, 1, tmp_path)
    assert again == texts
    assert other != texts


WORDS = st.sampled_from(["dog", "hot dog", "wall", "photo", "a", "corner", "skis", "glass of wine"])


@settings(max_examples=15)
@given(st.lists(WORDS, min_size=1, max_size=6, unique=True), st.lists(WORDS, max_size=3))
def test_whatever_the_words_each_class_has_enough_or_is_told(
    tmp_path_factory: pytest.TempPathFactory, classes: list[str], traps: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("words")
    rows = [f"{word},{word}" for word in classes]
    rows += [f",{word}" for word in dict.fromkeys(traps) if word not in classes]
    (folder / "words.csv").write_text("\n".join(["class,synonym", *rows]) + "\n")
    vocabulary = load_vocabulary(folder / "words.csv")
    counts = [index * 4 for index in range(len(classes))]
    texts, short = compose(vocabulary, counts, Together(), 8, 3, folder)
    found = Counter(x for one in labels_of(texts, folder / "words.csv", folder) for x in one)
    for label, count in zip(classes, counts, strict=True):
        assert short.get(label, 8) <= count + found[label]
        assert (label in short) == (count + found[label] < 8)


def test_nouns_are_counted_where_they_can_be(tmp_path: Path) -> None:
    path = tmp_path / "words.csv"
    rows = [
        "scissors,scissors",
        "wine,glass of wine",
        "skis,skis",
        "skis,to ski",
        "bat,[swings] bat",
    ]
    path.write_text("\n".join(["class,synonym", *rows]) + "\n")
    assert nouns_of(load_vocabulary(path)) == [
        [Noun(None, "scissors")],
        [Noun("glass of wine", "glasses of wine")],
        [Noun(None, "skis")],
        [Noun("swings bat", "swings bats")],
    ]


def test_they_stand_beside_what_they_are_seen_with(tmp_path: Path) -> None:
    vocabulary = load_vocabulary(builtin_vocabulary_path("voc2007"))
    cat, dog = (vocabulary.classes.index(name) for name in ("cat", "dog"))
    counts = [1000] * len(vocabulary.classes)
    counts[cat] = 0
    seen = Together({2: 1}, {cat: {dog: 9}})
    texts, _ = compose(vocabulary, counts, seen, 400, 0, tmp_path)
    found = labels_of(texts, builtin_vocabulary_path("voc2007"), tmp_path)
    assert all(len(labels) == 2 and "cat" in labels for labels in found)
    share = sum("dog" in labels for labels in found) / len(found)
    assert 0.9 <= share <= 0.99


def test_a_source_of_a_profile_counted_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAI_HOME", str(tmp_path))
    given = load_profile(SMALL).values()["sources"]
    profile = load_profile(SMALL, {"sources": [*given, COMPOSES]})
    vocabulary = check_captions(profile)
    corpora, labels, chosen = choose(profile)
    assert [is_composed(corpus) for corpus in corpora] == [False, False, True]
    counts = Counter[str]()
    for stage in labels:
        counts.update(stage.figures["classes"])
    assert min(counts[label] for label in vocabulary.classes) >= 90
    assert chosen.counts["captions/composed"] == corpora[-1].counts["captions/kept"]
    ids = pq.read_table(corpora[-1].file(CORPUS))["caption_id"].to_pylist()
    assert all(name.startswith("made/") for name in ids)
    real = together([stage.file(LABELS) for stage in labels[:-1]], vocabulary)
    captions = sum(stage.counts["captions/labelled"] for stage in labels[:-1])
    assert sum(real.sizes.values()) == captions
    # now no class lacks any
    full = compose_captions.fn(profile.sources[-1], vocabulary, corpora, labels, 0)
    assert full.counts["captions/composed"] == 0
    assert pq.read_table(full.file(COMPOSED)).num_rows == 0


def test_they_are_enough_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAI_HOME", str(tmp_path))
    _, _, chosen = choose(load_profile(SMALL, {"sources": [COMPOSES]}))
    assert chosen.counts["captions/selected"] == chosen.counts["captions/composed"] > 0


def test_a_path_is_needed_or_refused() -> None:
    for source, told in (
        ({"source": "a", "form": "composed", "path": "x.json"}, "expected no `path`"),
        ({"source": "a", "form": "coco"}, "expected `path`"),
    ):
        with pytest.raises(InputError, match=told):
            load_profile(SMALL, {"sources": [source]})
