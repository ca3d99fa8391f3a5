"""Phrases: where captions are cut, and what a batch of them holds."""

import random
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from models.backbone import Backbone
from tasks.backbone.loading import load_backbone
from tasks.captions.partitions import write_partitions
from tasks.captions.phrases import CaptionPhrases, cut, write_phrases
from tasks.labels.label import SPAN

CONFIG = Path(__file__).parents[2] / "small" / "tiny-clip.json"
CLASSES = ("dog", "cat", "surfboard", "person")


def span(text: str, words: str, *labels: str) -> list[dict[str, object]]:
    start = text.index(words)
    return [
        {"class": label, "synonym": words, "start": start, "end": start + len(words)}
        for label in labels
    ]


@pytest.mark.parametrize(
    ("text", "named", "expected"),
    [
        (
            "There is a wet dog on the old sofa.",
            [("dog", "dog")],
            [("There is a", ()), ("wet dog", ("dog",)), ("on the old sofa", ())],
        ),
        (
            "dog and cat",
            [("dog", "dog"), ("cat", "cat")],
            [("dog", ("dog",)), ("and cat", ("cat",))],
        ),
        ("A surfer!", [("surfer", "person", "surfboard")], [("A surfer", ("person", "surfboard"))]),
        ("a photo of a dog.", [], [("a photo of a dog.", ())]),
        ("red, dog", [("dog", "dog")], [("red, dog", ("dog",))]),
    ],
)
def test_a_caption_is_cut_at_what_names_a_class(
    text: str, named: list[tuple[str, ...]], expected: list[tuple[str, tuple[str, ...]]]
) -> None:
    spans = [each for words, *labels in named for each in span(text, words, *labels)]
    assert cut(text, spans) == expected


@given(
    st.lists(st.sampled_from(["a", "big", "dog", "cat", ",", "on", "ünder"]), min_size=1),
    st.randoms(),
)
def test_every_named_span_is_in_one_phrase_and_no_word_is_in_two(
    words: list[str], source: random.Random
) -> None:
    text = " ".join(words)
    spans, at = [], 0
    for word in words:
        if word in CLASSES and source.random() < 0.7:
            spans.append({"class": word, "start": at, "end": at + len(word)})
        at += len(word) + 1
    found = cut(text, spans)
    if not spans:
        assert found == [(text, ())]
        return
    assert [label for _, labels in found for label in labels] == [each["class"] for each in spans]
    at = 0
    for phrase, labels in found:
        at = text.index(phrase, at) + len(phrase)
        assert phrase
        assert all(label in phrase for label in labels)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone(str(CONFIG), "", seed=0, resolution=None, device="cpu").backbone


def test_a_batch_holds_each_phrase_as_the_tower_reads_it_alone(
    tmp_path: Path, backbone: Backbone
) -> None:
    texts = [
        "a wet dog and a cat on the bed",
        "two cats",
        "a surfer with a dog",
        "a photo of a cat.",
    ]
    named = [
        [("dog", "dog"), ("cat", "cat")],
        [("cats", "cat")],
        [("surfer", "person", "surfboard"), ("dog", "dog")],
        [],
    ]
    spans = [
        [each for words, *labels in of_text for each in span(text, words, *labels)]
        for text, of_text in zip(texts, named, strict=True)
    ]
    classes = [["dog", "cat"], ["cat"], ["person", "surfboard", "dog"], ["cat"]]
    tables = [
        pa.table(
            {
                "caption_id": [f"{part}/{row}" for row in rows],
                "text": [texts[row] for row in rows],
                "classes": [classes[row] for row in rows],
                "spans": pa.array([spans[row] for row in rows], pa.list_(SPAN)),
            }
        )
        for part, rows in (("a", [0, 1]), ("b", [2, 3]))
    ]
    sizes = write_partitions(tables, backbone, tmp_path)
    folders = []
    for name in sizes:
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        write_phrases(tmp_path / f"{name}.parquet", backbone, folders[-1], name)
    captions = CaptionPhrases(tmp_path, folders, CLASSES)
    assert len(captions) == 4
    order = [2, 0, 3, 1]
    batch = captions.batch(torch.tensor(order), torch.device("cpu"))
    expected = [cut(texts[row], spans[row]) for row in order]
    assert batch.offsets.diff().tolist() == [len(each) for each in expected]
    flat = [each for of_caption in expected for each in of_caption]
    for row, (phrase, _) in enumerate(flat):
        tokens = backbone.tokenize([phrase])
        length = int(backbone.lengths(tokens)[0])
        with torch.no_grad():
            alone = backbone.project(backbone.encode_text(tokens[:, :length])[0, -1])
        torch.testing.assert_close(
            batch.features[row], F.normalize(alone, dim=-1), rtol=0, atol=2e-3
        )
    pairs = [(row, label) for row, (_, labels) in enumerate(flat) for label in labels]
    names = [CLASSES[column] for column in batch.named_classes.tolist()]
    assert list(zip(batch.named.tolist(), names, strict=True)) == pairs
    for row, caption in enumerate(order):
        shown = [CLASSES[column] for column in batch.labels[row].nonzero().flatten().tolist()]
        assert sorted(shown) == sorted(classes[caption])
