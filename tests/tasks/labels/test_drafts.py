"""Drafts of vocabularies, with a WordNet of a few words and without one; words beside mentions."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import InputError
from tasks.labels.drafts import draft, neighbours, read_classes
from tasks.labels.label import write_labels
from tasks.labels.vocabulary import load_vocabulary

ROOT = Path(__file__).parents[3]


def test_without_wordnet_names_stand_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("# my classes\ndog\n\nhot dog\n  bus \n")
    classes = read_classes(tmp_path / "mine.txt")
    assert classes == ["dog", "hot dog", "bus"]
    found = draft(classes)
    assert found.synonyms == {"dog": ["dog"], "hot dog": ["hot dog"], "bus": ["bus"]}
    assert not found.from_wordnet
    (tmp_path / "mine.csv").write_text(found.csv())
    assert load_vocabulary(tmp_path / "mine.csv").classes == ("dog", "hot dog", "bus")


WORDNET = """
import nltk, pathlib, sys
folder = pathlib.Path(sys.argv[1]) / "corpora" / "wordnet"
folder.mkdir(parents=True)
synsets = [["dog", "domestic_dog", "Canis_familiaris"], ["automobile", "car", "auto", "dog"]]
data, index = b"", {}
for lemmas in synsets:
    offset = len(data)
    words = " ".join(f"{lemma} 0" for lemma in lemmas)
    data += f"{offset:08d} 05 n {len(lemmas):02x} {words} 000 | a thing\\n".encode()
    for lemma in lemmas:
        index.setdefault(lemma.lower(), []).append(offset)
lines = [
    f"{lemma} n {len(at)} 0 {len(at)} 0 {' '.join(f'{o:08d}' for o in at)}"
    for lemma, at in sorted(index.items())
]
for part in ("noun", "verb", "adj", "adv"):
    for name in (f"index.{part}", f"data.{part}", f"{part}.exc"):
        (folder / name).write_bytes(b"")
(folder / "data.noun").write_bytes(data)
(folder / "index.noun").write_text("\\n".join(lines) + "\\n")
(folder / "lexnames").write_text("".join(f"{n:02d}\\tnoun.x\\t1\\n" for n in range(45)))
for name in ("index.sense", "cntlist.rev"):
    (folder / name).write_bytes(b"")
nltk.data.path.insert(0, sys.argv[1])
from tasks.labels.drafts import draft
found = draft(["dog", "car", "unicorn"])
assert found.from_wordnet
assert found.synonyms == {
    "dog": ["dog", "domestic dog", "canis familiaris"],
    "car": ["car", "automobile", "auto"],
    "unicorn": ["unicorn"],
}, found.synonyms
assert found.conflicts == {"dog": ["dog", "car"]}, found.conflicts
"""


def test_wordnet_proposes_synonyms_and_conflicts_are_left_out(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORDNET, str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"dog\ncat\ndog\n", "line 3: 'dog' as in line 1"),
        (b"# nothing\n", "expected 1 to"),
        (b"!!!\n", "line 1"),
        (b"a b c d e f\n", "line 1"),
        (b"\xff\n", "not UTF-8"),
    ],
)
def test_what_is_no_list_of_classes_says_why(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "mine.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_classes(tmp_path / "mine.txt")


NAMES = (
    "Dog",
    "dog",
    "hot dog",
    "HotDog",
    "ski",
    "skis",
    "to ski",
    "TV/monitor",
    "tv",
    "[x]",
    "bus",
)
SIGNS = st.text(alphabet="ab \u00e9\u72d7_-/&()[]+*.,'\"|;1\u0301", max_size=12)
ODD_LISTS = st.lists(st.one_of(st.sampled_from(NAMES), SIGNS), max_size=8).map(
    lambda names: "\n".join(names).encode()
)


def test_an_odd_list_makes_a_draft_that_loads(tmp_path: Path) -> None:
    names = ["Dog", "dog", "TV/monitor", "bow (weapon)", "fire_hydrant", "salt & pepper", "hot dog"]
    (tmp_path / "mine.txt").write_text("\n".join([*names, "HotDog", "ski", "skis"]))
    found = draft(read_classes(tmp_path / "mine.txt"))
    assert found.synonyms == {
        "Dog": ["Dog"],
        "TV/monitor": ["TV monitor"],
        "bow (weapon)": ["bow"],
        "fire_hydrant": ["fire hydrant"],
        "salt & pepper": ["salt and pepper"],
        "hot dog": ["hot dog"],
        "ski": ["ski"],
    }
    # all clashes at once
    assert found.left_out == {
        "dog": "'dog' is Dog already",
        "HotDog": "'hotdog' is hot dog already",
        "skis": "'skis' is ski already",
    }
    (tmp_path / "mine.csv").write_text(found.csv())
    assert load_vocabulary(tmp_path / "mine.csv").classes == tuple(found.synonyms)


@settings(max_examples=150)
@given(content=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode), ODD_LISTS))
def test_any_list_makes_a_vocabulary_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("drafts")
    (folder / "mine.txt").write_bytes(content)
    try:
        classes = read_classes(folder / "mine.txt")
        (folder / "mine.csv").write_text(draft(classes).csv(), encoding="utf-8")
        loaded = load_vocabulary(folder / "mine.csv")
        assert [*loaded.classes, *draft(classes).left_out] == sorted(
            classes, key=lambda name: name in draft(classes).left_out
        )
    except InputError as error:
        message = str(error)
    else:
        message = "mine.csv is whole"
    assert "mine." in message


def test_words_beside_mentions(tmp_path: Path) -> None:
    texts = ["A black dog sleeps", "the black dog's tail", "Dog, cat"]
    ids = [str(place) for place in range(len(texts))]
    pq.write_table(pa.table({"caption_id": ids, "text": texts}), tmp_path / "c.parquet")
    (tmp_path / "v.csv").write_text("class,synonym\ndog,dog\ncat,cat\nbus,bus\n")
    vocabulary = load_vocabulary(tmp_path / "v.csv")
    write_labels([tmp_path / "c.parquet"], vocabulary, tmp_path / "l.parquet")
    found = neighbours(vocabulary, [tmp_path / "c.parquet"], [tmp_path / "l.parquet"])
    assert found == {
        "dog": [("black", 2, 0), ("s", 0, 1), ("sleeps", 0, 1)],
        "cat": [],
        "bus": [],
    }
