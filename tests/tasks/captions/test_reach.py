"""Labels stand where the tower reads: against counting the tokens of each word."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer

from tasks.captions.reach import within_reach
from tasks.labels.label import SPAN
from tests.models.conftest import small_backbone

BACKBONE = small_backbone()
ROOM = BACKBONE.context_length - 2
TOKENIZER = SimpleTokenizer()
CLASSES = ("boat", "dog", "zebra")
WORDS = (*CLASSES, "a", "the", "unphotographable", "caf\u00e9", "3", "\u72d7")
SCHEMA = pa.schema(
    {
        "caption_id": pa.string(),
        "text": pa.string(),
        "classes": pa.list_(pa.string()),
        "spans": pa.list_(SPAN),
    }
)
SENTENCES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=30)


def size(word: str) -> int:
    return len(TOKENIZER.encode(word))


def captioned(sentences: list[list[str]], key: str) -> dict[str, object]:
    """A caption of sentences, with a span at every word that is a class."""
    text, spans = "", []
    for words in sentences:
        for word in words:
            text += " " if text else ""
            if word in CLASSES:
                place = {"start": len(text), "end": len(text) + len(word)}
                spans.append({"class": word, "synonym": word, **place})
            text += word
        text += "."
    named = {span["class"] for span in spans}
    classes = [label for label in CLASSES if label in named]
    return {"caption_id": key, "text": text, "classes": classes, "spans": spans}


def read_of(sentences: list[list[str]]) -> list[list[str]]:
    """Class words of each part, by a count of tokens: sentences together while they fit."""
    parts: list[list[tuple[str, int]]] = [[]]
    for words in sentences:
        sized = [(word, size(word)) for word in words] + [(".", 1)]
        if parts[-1] and sum(n for _, n in [*parts[-1], *sized]) > ROOM:
            parts.append([])
        parts[-1] += sized
    found = []
    for part in parts:
        taken, read = 0, []
        for word, tokens in part:
            taken += tokens
            if word in CLASSES and taken <= ROOM:
                read.append(word)
        found.append(read)
    return found


@settings(max_examples=60)
@given(captions=st.lists(st.lists(SENTENCES, min_size=1, max_size=4), min_size=1, max_size=5))
def test_every_label_is_of_a_word_that_the_tower_reads(captions: list[list[list[str]]]) -> None:
    rows = [captioned(sentences, f"c{n}") for n, sentences in enumerate(captions)]
    rows = [row for row in rows if row["classes"]]
    (table,), counts = within_reach([pa.Table.from_pylist(rows, schema=SCHEMA)], BACKBONE)
    expected = []
    behind = silent = 0
    for sentences in captions:
        named = [word for words in sentences for word in words if word in CLASSES]
        if named:
            parts = read_of(sentences)
            expected += [part for part in parts if part]
            behind += len(named) - sum(map(len, parts))
            silent += not any(parts)
    found = table.to_pylist()
    assert [[span["class"] for span in row["spans"]] for row in found] == expected
    for row in found:
        for span in row["spans"]:
            assert row["text"][span["start"] : span["end"]] == span["class"]
        assert row["classes"] == [c for c in CLASSES if c in {s["class"] for s in row["spans"]}]
    assert counts["labels/behind_cut"] == behind
    assert counts["captions/behind_cut"] == silent
    assert len(rows) - counts["captions/too_long"] + counts["captions/parts"] == len(found)


@pytest.mark.parametrize("words", [ROOM - 1, ROOM])
def test_a_caption_that_just_fits_stays_as_it_is(words: int) -> None:
    """The last of the words that fit is a label, and one more word makes it none."""
    row = captioned([["the"] * (words - 2) + ["boat"]], "c")
    table = pa.Table.from_pylist([row], schema=SCHEMA)
    (same,), counts = within_reach([table], BACKBONE)
    assert same.equals(table)
    assert not any(counts.values())
    row = captioned([["the"] * ROOM + ["boat"]], "c")
    (none,), counts = within_reach([pa.Table.from_pylist([row], schema=SCHEMA)], BACKBONE)
    assert none.num_rows == 0
    assert (counts["captions/behind_cut"], counts["labels/behind_cut"]) == (1, 1)
