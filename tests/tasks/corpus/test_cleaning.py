"""One text for labeller and tower: what looks the same gives the same labels."""

import html
import json
import random
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import open_clip.tokenizer
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.captions import made_up
from tasks.corpus.cleaning import clean, cleaned
from tasks.labels.label import write_labels
from tasks.labels.vocabulary import builtin_vocabulary_path, load_vocabulary

COCO = load_vocabulary(builtin_vocabulary_path("coco2014"))
REAL = Path(__file__).parents[4] / "shared/data/coco_mini/annotations/captions_val2017.json"
AT_MOST = 0.001
Change = Callable[[random.Random, str], str]


def as_the_tower_reads(text: str) -> str:
    """What CLIP's tokenizer makes of a text before it lower-cases it."""
    return str(open_clip.tokenizer.whitespace_clean(open_clip.tokenizer.basic_clean(text)))


PIECES = st.sampled_from(
    [
        *("dog", "a", " ", "  ", "<", ">", "<3", "a < b", "<b>", "</b>", "<br/>", "<b and c>", "&"),
        *("&amp;", "&lt;", "&ltb&gt", "&nbsp", "&nbsp;", "&#x200b;", "&#39;", "R&B", "&copy2020"),
        *("\u00ad", "\u200b", "\u200d", "\u202e", "\ufeff", "\u00a0", "\u3000", "\uff44\uff4f"),
        *("\u2019", "\u2018", "\u201c", "\u2013", "\u2011", "caf\u00e9", "cafe\u0301", "\ufb01"),
        *("\u00e2\u20ac\u2122", "\U0001f468\u200d\U0001f469", "\u72d7", "\u05d0\u05b7", "\u0130"),
    ]
)


@settings(max_examples=400)
@given(
    text=st.one_of(st.text(max_size=30), st.lists(PIECES, max_size=12).map("".join)).filter(
        lambda text: not any(unicodedata.category(c) in ("Cc", "Cs") for c in text)
    )
)
@example(text="&amp;amp;amp;nbsp;")
@example(text="&am\u00adp;lt;b&gt;")
def test_the_tower_finds_nothing_left_to_clean(text: str) -> None:
    found = clean(text)
    assert clean(found) == found
    assert as_the_tower_reads(found) == found
    column = cleaned(pa.chunked_array([["plain"], [text, None, " x"]]))
    assert column.texts.to_pylist() == ["plain", found, None, "x"]
    assert column.is_plain.to_pylist()[1] == (found.isascii() and found.isprintable())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a  dog\u00a0on\ta mat ", "a dog on a mat"),
        ("I <3 dogs", "I <3 dogs"),
        ("2 < 3 dogs > 1", "2 < 3 dogs > 1"),
        ("a <b>dog</b> and a <i class='x'>cat</i>", "a dog and a cat"),
        ("one<br>two<br/>three<p>four</p>", "one two three four"),
        ("if a <b and c> d", "if a <b and c> d"),
        ("<person> with <dog>", "<person> with <dog>"),
        ("Tom &amp; Jerry, R&B, AT&T", "Tom & Jerry, R&B, AT&T"),
        ("a dog&nbsp;on&nbsp a mat&#160;here", "a dog on a mat here"),
        ("&lt;b&gt;dog&lt;/b&gt;", "dog"),
        ("a man\u2019s dog\u2018s", "a man's dog's"),
        ("a man\u00e2\u20ac\u2122s dog", "a man's dog"),
        ("hot\u2011dog \u2013 \u201cfresh\u201d", 'hot-dog - "fresh"'),
        ("d\u00ado\u00adg c\u200bat \ufeffbus", "dog cat bus"),
        ("a\u200bdog\u200brunning", "a dog running"),
        ("a traf\u200bfic light", "a traffic light"),
        (
            "\uff41\u3000\uff44\uff4f\uff47 \ufb01re \U0001d41d\U0001d428\U0001d420",
            "a dog fire dog",
        ),
        ("cafe\u0301 a\u0308", "caf\u00e9 \u00e4"),
        ("x\u00b2 \u00bd", "x\u00b2 \u00bd"),
        ("d\u0336o\u0336g\u0336", "dog"),
    ],
)
def test_what_becomes_of_odd_signs(text: str, expected: str) -> None:
    assert clean(text) == expected


def test_a_column_keeps_its_nulls_and_its_plain_texts() -> None:
    texts = pa.chunked_array([["plain", None, "a\u00ad"], ["<3", " x "]])
    assert cleaned(texts).texts.to_pylist() == ["plain", None, "a", "<3", "x"]
    assert cleaned(texts.slice(2, 2)).texts.to_pylist() == ["a", "<3"]
    assert cleaned(texts.slice(1, 1)).texts.to_pylist() == [None]
    assert cleaned(texts.slice(0, 0)).texts.to_pylist() == []


def put_in(sign: str) -> Change:
    """Sign after sign, anywhere in words and beside them."""

    def change(source: random.Random, text: str) -> str:
        for _ in range(source.randint(1, 4)):
            at = source.randint(0, len(text))
            text = text[:at] + sign + text[at:]
        return text

    return change


def of_bidi(source: random.Random, text: str) -> str:
    marks = "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    return put_in(source.choice(marks))(source, text)


def full_width(source: random.Random, text: str) -> str:
    share = source.random()
    return "".join(
        chr(ord(c) + 0xFEE0)
        if "!" <= c <= "~" and source.random() < share
        else "\u3000"
        if c == " " and source.random() < share
        else c
        for c in text
    )


def decomposed(_: random.Random, text: str) -> str:
    return unicodedata.normalize("NFD", text)


def in_bold(source: random.Random, text: str) -> str:
    start, end = sorted(source.randint(0, len(text)) for _ in range(2))
    return f"{text[:start]}<b>{text[start:end]}</b>{text[end:]}"


def hard_blanks(source: random.Random, text: str) -> str:
    kinds = ["&nbsp;", "&nbsp; ", " &nbsp;", "&#160;", "\u00a0", "&#xa0;"]
    return "".join(source.choice(kinds) if c == " " and source.random() < 0.5 else c for c in text)


def entities(source: random.Random, text: str) -> str:
    return "".join(f"&#{ord(c)};" if source.random() < 0.1 else html.escape(c) for c in text)


CHANGES: dict[str, Change] = {
    "soft hyphens": put_in("\u00ad"),
    "zero-width spaces": put_in("\u200b"),
    "joiners": put_in("\u200d"),
    "marks of order": put_in("\ufeff"),
    "bidi marks": of_bidi,
    "full width": full_width,
    "decomposed": decomposed,
    "bold": in_bold,
    "hard blanks": hard_blanks,
    "entities": entities,
}


def classes_of(texts: Sequence[str], folder: Path) -> dict[str, list[str]]:
    """Classes by place of each text, as ingest and label make them."""
    table = {"caption_id": [str(place) for place in range(len(texts))]}
    column = cleaned(pa.chunked_array([list(texts)])).texts
    pq.write_table(pa.table({**table, "text": column}), folder / "c.parquet")
    write_labels([folder / "c.parquet"], COCO, folder / "l.parquet")
    rows = pq.read_table(folder / "l.parquet").to_pylist()
    return {row["caption_id"]: row["classes"] for row in rows}


def moved(texts: Sequence[str], change: Change, folder: Path) -> list[str]:
    """Texts whose classes are others once they are changed."""
    source = random.Random(0)
    before = classes_of(texts, folder)
    after = classes_of([change(source, text) for text in texts], folder)
    places = [str(place) for place in range(len(texts))]
    return [texts[int(place)] for place in places if before.get(place) != after.get(place)]


@pytest.mark.parametrize("name", CHANGES)
def test_labels_of_made_captions_stay(tmp_path: Path, name: str) -> None:
    texts, _ = made_up(1000, [*COCO.prompt_names, "caf\u00e9 dog", "na\u00efve hot dog"])
    assert len(moved(texts, CHANGES[name], tmp_path)) <= AT_MOST * len(texts)


@pytest.mark.parametrize("name", CHANGES)
def test_labels_of_real_captions_stay(tmp_path: Path, name: str) -> None:
    if not REAL.is_file():
        pytest.skip("the development data are not here")
    found = json.loads(REAL.read_text(encoding="utf-8"))["annotations"]
    texts = [one["caption"] for one in random.Random(1).sample(found, 5000)]
    changed = moved(texts, CHANGES[name], tmp_path)
    assert len(changed) <= AT_MOST * len(texts), changed[:5]
