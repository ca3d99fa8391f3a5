"""Captions are true, leave things out as people do, and their labels are those of their scenes."""

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.labels.label import write_labels
from tasks.labels.vocabulary import builtin_vocabulary_path, load_vocabulary
from tasks.world.captions import Caption, describe, vocabulary
from tasks.world.glyphs import things
from tasks.world.scenes import Scene, compose

COUNT = 3000


@pytest.fixture(scope="module")
def pairs() -> list[tuple[Scene, Caption]]:
    scenes = [compose(random.Random(f"pair/{number}")) for number in range(COUNT)]
    return [(scene, describe(random.Random(n), scene)) for n, scene in enumerate(scenes)]


def test_what_is_mentioned_is_shown(pairs: list[tuple[Scene, Caption]]) -> None:
    for scene, caption in pairs:
        shown = {placed.glyph.name for placed in scene.placed}
        assert caption.mentioned
        assert set(caption.mentioned) <= shown
        for name in caption.mentioned:
            words = vocabulary()[name]
            forms = (name, *words.synonyms, *words.loose)
            # plurals change the ends of words: their beginnings tell enough
            beginnings = [[word[:3] for word in form.split()] for form in forms]
            text = caption.text.lower().replace("mice", "mouse")
            assert any(all(part in text for part in of_form) for of_form in beginnings)


def test_about_a_third_of_the_things_is_left_out(pairs: list[tuple[Scene, Caption]]) -> None:
    shown = sum(len({placed.glyph.name for placed in scene.placed}) for scene, _ in pairs)
    left_out = shown - sum(len(caption.mentioned) for _, caption in pairs)
    assert left_out / shown == pytest.approx(1 / 3, abs=0.03)


def test_counts_and_places_are_true() -> None:
    for number in range(COUNT):
        scene = compose(random.Random(f"pair/{number}"))
        text = describe(random.Random(number), scene).text
        if " to the left of " in text and len(scene.placed) == 2 and len(scene.labels) == 2:
            first, second = scene.placed
            head = text.split(" to the left of ")[0]
            words = vocabulary()[first.glyph.name]
            names = (words.name, *words.synonyms, *words.loose)
            is_first = any(head.endswith(name) for name in names)
            left, right = (first, second) if is_first else (second, first)
            assert left.x < right.x
        if "two " in text.lower().replace("two wheeler", ""):
            names = [placed.glyph.name for placed in scene.placed]
            assert any(names.count(name) == 2 for name in names)


def test_labels_of_captions_are_those_of_their_scenes(
    pairs: list[tuple[Scene, Caption]], tmp_path: Path
) -> None:
    ids = [f"{number}" for number in range(COUNT)]
    texts = [caption.text for _, caption in pairs]
    pq.write_table(pa.table({"caption_id": ids, "text": texts}), tmp_path / "corpus.parquet")
    demo = load_vocabulary(builtin_vocabulary_path("demo"))
    write_labels([tmp_path / "corpus.parquet"], demo, tmp_path / "labels.parquet")
    rows = pq.read_table(tmp_path / "labels.parquet").to_pylist()
    found = {row["caption_id"]: set(row["classes"]) for row in rows}
    right = wrong = mentioned = 0
    names = {thing.name for thing in things() if thing.is_class}
    for number, (scene, caption) in enumerate(pairs):
        labels = found.get(str(number), set())
        right += len(labels & set(scene.labels))
        wrong += len(labels - set(scene.labels))
        mentioned += len(set(caption.mentioned) & names)
    assert wrong == 0
    # the rest goes by words that are in no vocabulary, such as "something to read"
    assert 0.8 < right / mentioned < 0.97
