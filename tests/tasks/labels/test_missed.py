"""Missed words of a kitchen whose vocabulary lacks five of them, and how they are accepted."""

import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import InputError
from tasks.labels.additions import add_rows, chosen_rows
from tasks.labels.drafts import synonym_counts
from tasks.labels.label import write_labels
from tasks.labels.missed import Missed, _edits, missed_words
from tasks.labels.vocabulary import Vocabulary, load_vocabulary

ROOT = Path(__file__).parents[3]
# words that captions use and the vocabulary lacks: their class, and in how many of 300 captions
LACKING = {
    "chefs knife": ("chef's knife", 30),
    "strainer": ("colander", 28),
    "oven gloves": ("oven mitt", 22),
    "skillet": ("frying pan", 21),
    "chopping board": ("cutting board", 18),
}
NAMED = {
    "chef's knife": 8,
    "colander": 14,
    "oven mitt": 12,
    "frying pan": 22,
    "cutting board": 19,
    "whisk": 20,
    "spatula": 18,
    "rolling pin": 16,
    "ladle": 14,
    "grater": 14,
    "kettle": 14,
    "measuring cup": 10,
}
USES = {
    "chef's knife": "slicing an onion|chopping carrots|with a sharp blade|cutting a tomato",
    "colander": "draining pasta|full of rinsed berries|with wet noodles|rinsing lettuce",
    "oven mitt": "holding a hot tray|with a burnt thumb|and a hot casserole",
    "frying pan": "with two eggs|of sizzling bacon|with melted butter|and a pancake",
    "cutting board": "with sliced bread|covered in herbs|and diced tomatoes|with cheese and bread",
    "whisk": "beating eggs|in a bowl of cream|covered in batter",
    "spatula": "flipping a pancake|turning a burger|lifting a cookie",
    "rolling pin": "flattening dough|dusted with flour|beside pie crust",
    "ladle": "serving soup|pouring broth|in a pot of stew",
    "grater": "with parmesan cheese|shredding a carrot|and lemon zest",
    "kettle": "of boiling water|on the stove|pouring tea",
    "measuring cup": "of flour|filled with milk|pouring sugar",
}
LOOKS = ["", "old ", "red ", "wooden ", "shiny ", "small ", "large ", "steel "]
PLACES = ["", "on the counter", "on a table", "in the sink", "by a window", "on a white shelf"]
FORMS = [
    "A {look}{thing} {use} {place}",
    "Someone holding a {look}{thing} {use}",
    "A woman with a {look}{thing} {use} {place}",
    "{look}{thing} {use} {place}",
    "A photo of a {look}{thing} {place}",
]


def kitchen(seed: int) -> list[str]:
    """300 captions: each of a thing, what is done with it, how it looks and where it is."""
    rng = random.Random(seed)
    things = [(name, name) for name, times in NAMED.items() for _ in range(times)]
    things += [(words, name) for words, (name, times) in LACKING.items() for _ in range(times)]
    texts = []
    for thing, name in things:
        use, look, place = (rng.choice(of) for of in (USES[name].split("|"), LOOKS, PLACES))
        text = rng.choice(FORMS).format(thing=thing, use=use, look=look, place=place)
        texts.append(" ".join(text.split()))
    rng.shuffle(texts)
    assert len(texts) == 300
    return texts


def labelled(folder: Path, texts: list[str], vocabulary: Vocabulary) -> dict[str, int]:
    ids = [f"{place:04}" for place in range(len(texts))]
    pq.write_table(pa.table({"caption_id": ids, "text": texts}), folder / "c.parquet")
    return write_labels([folder / "c.parquet"], vocabulary, folder / "l.parquet", workers=1)[0]


def missed_in(folder: Path, vocabulary: Vocabulary) -> list[Missed]:
    return missed_words(vocabulary, [folder / "c.parquet"], [folder / "l.parquet"])


def kitchen_vocabulary(folder: Path) -> Path:
    path = folder / "kitchen.csv"
    path.write_text("class,synonym\n" + "".join(f"{name},{name}\n" for name in NAMED))
    return path


@pytest.mark.parametrize("seed", range(3))
def test_the_words_a_kitchen_lacks_are_found_and_accepting_them_labels_all(
    tmp_path: Path, seed: int
) -> None:
    path = kitchen_vocabulary(tmp_path)
    vocabulary = load_vocabulary(path)
    texts = kitchen(seed)
    before = labelled(tmp_path, texts, vocabulary)
    assert before["captions/labelled"] == sum(NAMED.values())
    missed = missed_in(tmp_path, vocabulary)
    first = {one.text: one for one in missed[:10]}
    for words, (name, times) in LACKING.items():
        found = first[words]
        assert (found.label, found.captions, found.silent) == (name, times, times)
    assert "written as" in first["chefs knife"].reason
    assert "“oven”" in first["oven gloves"].reason
    assert "said with" in first["skillet"].reason
    added = add_rows(path, chosen_rows(LACKING, missed))
    assert added.classes == vocabulary.classes
    assert labelled(tmp_path, texts, added)["captions/labelled"] == 300
    counts = synonym_counts(added, [tmp_path / "l.parquet"])
    assert counts["colander"] == {"strainer": 28, "colander": 14}
    assert not {one.text for one in missed_in(tmp_path, added)} & set(LACKING)


def test_the_command_shows_them_and_accepts_by_number_words_and_class(tmp_path: Path) -> None:
    path = kitchen_vocabulary(tmp_path)
    rows = [f'{n},"{text}"' for n, text in enumerate(kitchen(0))]
    (tmp_path / "c.csv").write_text("id,text\n" + "\n".join(rows) + "\n")
    (tmp_path / "p.toml").write_text(
        f'data = "{tmp_path}"\nvocabulary = "kitchen.csv"\n'
        '[[sources]]\nsource = "k"\nform = "table"\npath = "c.csv"\ntext_column = "text"\n'
        'id_column = "id"\n[[images]]\nname = "x"\nannotations = "i.json"\nfolder = "i"\n'
    )
    command = [sys.executable, "-m", "flows.vocabulary", "--profile", str(tmp_path / "p.toml")]
    accept = ["--accept", "1", "oven gloves", "strainer=colander", "skillet", "chopping board"]
    done = subprocess.run(
        [*command, *accept],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": "", "TAI_HOME": str(tmp_path / "home"), "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stderr
    for word in (*LACKING, "no trained weights", "strainer (colander)"):
        assert word in done.stdout
    assert "181 before, 300 now" in done.stdout
    assert path.read_text().splitlines()[13:] == [
        "chef's knife,chefs knife",
        "oven mitt,oven gloves",
        "colander,strainer",
        "frying pan,skillet",
        "cutting board,chopping board",
    ]


def test_the_text_towers_word_counts(tmp_path: Path) -> None:
    vocabulary = load_vocabulary(kitchen_vocabulary(tmp_path))
    labelled(tmp_path, ["a griddle here"] * 3 + ["a frying pan there"] * 3, vocabulary)
    plain, with_tower = (
        missed_words(vocabulary, [tmp_path / "c.parquet"], [tmp_path / "l.parquet"], alike)
        for alike in (
            None,
            lambda words, names: [[0.9 * (n == "whisk") for n in names] for _ in words],
        )
    )
    assert [one.text for one in plain] == ["griddle"]
    assert with_tower[0].label == "whisk"
    assert with_tower[0].reason == "alike to the text tower (0.90)"
    assert with_tower[0].worth > plain[0].worth


def test_traps_function_words_and_what_is_taken_are_not_missed(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text("class,synonym\ndog,dog\n,hot dog\n")
    texts = ["Hot dog on the table", "two hot dogs, 12 dogs", "A hot dog", "the dog's dogs"]
    vocabulary = load_vocabulary(tmp_path / "v.csv")
    labelled(tmp_path, texts * 2, vocabulary)
    assert [one.text for one in missed_in(tmp_path, vocabulary)] == []


WORDS = st.lists(st.sampled_from(["cat", "a", "red", "cats", "sofa", ".", "dog's", "ⵣ", "12"]))


@settings(max_examples=25)
@given(texts=st.lists(WORDS.map(" ".join), min_size=1, max_size=12))
def test_counts_are_those_of_looking_at_each_caption(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("missed")
    (folder / "v.csv").write_text("class,synonym\ncat,cat\n")
    vocabulary = load_vocabulary(folder / "v.csv")
    labelled(folder, texts, vocabulary)

    def of(text: str) -> str:
        return f" {text} ".replace("'", " ")

    for one in missed_in(folder, vocabulary):
        having = [text for text in texts if any(f" {s} " in of(text) for s in one.spellings)]
        assert one.captions == len(having) >= 3
        assert one.silent == sum("cat" not in text for text in having)
        assert 0 <= one.likelihood <= 1


@given(one=st.text("abc", max_size=6), other=st.text("abc", max_size=6))
def test_edits_are_the_fewest(one: str, other: str) -> None:
    def fewest(a: str, b: str) -> int:
        if not a or not b:
            return len(a or b)
        ways = fewest(a[1:], b[1:]) + (a[0] != b[0]), fewest(a[1:], b) + 1, fewest(a, b[1:]) + 1
        return min(ways)

    assert _edits(one[:5], other[:5]) == fewest(one[:5], other[:5])


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_file_stays_as_it_was_but_for_the_new_rows(tmp_path: Path, ending: str) -> None:
    old = f'\ufeffnote,synonym,class{ending}"a, b",dog,dog{ending},hot dog,'
    path = tmp_path / "v.csv"
    path.write_bytes(old.encode())
    assert add_rows(path, [("dog", "pup, py".replace(", ", ""))]).classes == ("dog",)
    assert path.read_bytes().decode() == f"{old}{ending},puppy,dog{ending}"
    before = path.read_bytes()
    for rows, told in (
        ([("cat + dog", "x")], "each have a row of their own"),
        ([("dog", "hot dog")], "keep it in one of them"),
        ([("dog", "=1+1()")], "expected letters"),
    ):
        with pytest.raises(InputError, match=told) as caught:
            add_rows(path, rows)
        assert "with the new rows, line" in str(caught.value)
        assert path.read_bytes() == before


def test_what_the_table_has_not_needs_a_class(tmp_path: Path) -> None:
    for asked in ("skillet", "3", "=pan", ""):
        with pytest.raises(InputError, match="expected the number or the words"):
            chosen_rows([asked], [])
    unknown = Missed("skillet", ("skillet",), 3, 3, "", 0.0, "", 0.1)
    with pytest.raises(InputError, match="have a class"):
        chosen_rows(["skillet"], [unknown])
    assert chosen_rows(["1=pan"], [unknown]) == [("pan", "skillet")]
    assert chosen_rows(["skillet = pan", "skillet=pan"], []) == [("pan", "skillet")]
