"""What moves between refreshes: contents, counts, drift, and who starts a training."""

import json
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from flows.doors import check_captions
from flows.workspace import clean, verify
from tasks.corpus.ingest import ingest_captions
from tasks.corpus.sources import caption_files
from tasks.labels.label import label_captions
from tasks.labels.refresh import (
    Part,
    jensen_shannon,
    markdown_of,
    metrics_of,
    movement,
    note_asked,
    note_training,
    publish,
    publish_refresh,
)
from tasks.profile import Profile, load_profile
from tasks.workspace import Stage

ROOT = Path(__file__).parents[3]
COUNTS = st.dictionaries(st.sampled_from("abcde"), st.integers(0, 50), max_size=5)


@settings(max_examples=60)
@given(one=COUNTS, other=COUNTS)
def test_drift_is_scipys_jensen_shannon_distance(
    one: dict[str, int], other: dict[str, int]
) -> None:
    found = jensen_shannon(one, other)
    assert found == pytest.approx(jensen_shannon(other, one), abs=1e-12)
    totals = sum(one.values()), sum(other.values())
    if not all(totals):
        assert found == (1.0 if any(totals) else 0.0)
        return
    labels = sorted({*one, *other})
    expected = jensenshannon(
        [one.get(label, 0) for label in labels], [other.get(label, 0) for label in labels], base=2
    )
    assert found == pytest.approx(expected, abs=1e-7)


def part(file: str, digest: str, captions: int, **classes: int) -> Part:
    return Part(file, digest, captions, classes)


def test_movement_goes_by_content() -> None:
    before = [part("a", "1", 60, dog=30), part("b", "2", 20, dog=1), part("c", "3", 20, cat=5)]
    after = [part("a", "1", 60, dog=30), part("b", "9", 10, cat=2), part("d", "4", 50, cow=1)]
    moved = movement(before, after)
    assert (moved.new, moved.changed, moved.removed, moved.unchanged) == (
        ("d",),
        ("b",),
        ("c",),
        ("a",),
    )
    assert (moved.captions_before, moved.captions_after) == (100, 120)
    assert moved.share == pytest.approx((20 + 20 + 10 + 50) / (20 + 20 + 10 + 50 + 60))
    assert moved.classes == {"cat": (5, 2), "cow": (0, 1), "dog": (31, 30)}
    assert movement(after, after).is_none
    assert movement([], []).share == 0


def refreshed(folder: Path, **limits: float) -> tuple[Any, list[tuple[Path, Stage, Stage]]]:
    profile = profile_of(folder, **limits)
    vocabulary = check_captions(profile)
    found = []
    for source, path in caption_files(profile):
        corpus = ingest_captions.fn(source, path)
        found.append((path, corpus, label_captions.fn(corpus, vocabulary)))
    return publish_refresh.fn(profile, vocabulary, found), found


def profile_of(folder: Path, **limits: float) -> Profile:
    table = {"source": "t", "form": "table", "path": str(folder / "*.jsonl")}
    small = str(ROOT / "tests" / "small" / "small.toml")
    return load_profile(small, {"sources": [table], "refresh": limits})


def write(path: Path, *texts: str) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def test_only_what_is_new_is_worked_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAI_HOME", str(tmp_path / "home"))
    write(tmp_path / "a.jsonl", "A dog.", "Two dogs", "a cat")
    write(tmp_path / "b.jsonl", "a cat", "nothing")
    first, found = refreshed(tmp_path, train_at_share=0.5)
    assert first.trains
    assert first.since_last.new == first.since_training.new != ()
    assert all(labels.fresh for _, _, labels in found)
    # asked for, and not finished: it is asked for again, unless it is under way
    assert refreshed(tmp_path, train_at_share=0.5)[0].trains
    profile = profile_of(tmp_path, train_at_share=0.5)
    vocabulary = check_captions(profile)
    note_asked(profile, "run-1")
    waiting = publish_refresh.fn(profile, vocabulary, found, lambda run: run == "run-1")
    assert not waiting.trains
    assert publish_refresh.fn(profile, vocabulary, found, lambda run: False).trains
    note_training(profile, vocabulary.digest, found)
    # a copy of the same content is no change, whenever it was written
    write(tmp_path / "b.jsonl", "a cat", "nothing")
    again, found = refreshed(tmp_path, train_at_share=0.5)
    assert again.since_last.is_none
    assert not again.trains
    assert not any(corpus.fresh or labels.fresh for _, corpus, labels in found)
    # slow change adds up until it is enough, counted from the last training
    write(tmp_path / "c.jsonl", "a cat", "the cats")
    third, found = refreshed(tmp_path, train_at_share=0.5)
    assert [path.name for path, corpus, _ in found if corpus.fresh] == ["c.jsonl"]
    assert third.since_last.share == pytest.approx(2 / 7)
    assert not third.trains
    (tmp_path / "a.jsonl").unlink()
    fourth, _ = refreshed(tmp_path, train_at_share=0.5)
    assert len(fourth.since_last.removed) == 1
    assert fourth.since_last.share == pytest.approx(3 / 7)
    assert fourth.since_training.share == pytest.approx(5 / 7)
    assert fourth.trains
    metrics = metrics_of(fourth)
    assert metrics["captions_of/cat"] == 3
    assert metrics["files/removed"] == 1
    assert "| dog | 2 | 0 | -2 |" in markdown_of(fourth)


@pytest.mark.parametrize("spoil", [lambda text: text.replace("3", "7", 1), lambda text: text[:-9]])
def test_a_damaged_record_is_set_aside(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[str], str],
) -> None:
    monkeypatch.setenv("TAI_HOME", str(tmp_path / "home"))
    write(tmp_path / "a.jsonl", "A dog.", "Two dogs", "a cat")
    first, _ = refreshed(tmp_path)
    (record,) = (tmp_path / "home" / "refresh").glob("*.json")
    spoilt = spoil(record.read_text())
    record.write_text(spoilt)
    (sentence,) = verify()
    assert str(record) in sentence
    again, _ = refreshed(tmp_path)
    assert f"{record}: not as it was written; set aside, and all captions" in caplog.text
    assert again.since_last == first.since_last
    (aside,) = record.parent.glob(".*.damaged")
    assert aside.read_text() == spoilt
    assert refreshed(tmp_path)[0].since_last.is_none
    assert not verify()
    assert aside in {each.folder for each in clean(days=0)}
    clean(days=0, does=True)
    assert not aside.exists()
    assert refreshed(tmp_path)[0].since_last.is_none


def test_names_in_the_artifact_are_text() -> None:
    before, after = [part("`<a>`", "1", 1)], [part("`<a>`", "2", 2, **{"<b>|": 2})]
    movement_ = movement(before, after)
    from tasks.labels.refresh import Refresh

    text = markdown_of(Refresh(movement_, movement_, True))
    assert "<b>" not in text
    assert "&lt;b&gt;&#124;" in text
    assert "Enough to train anew" in text


def start(folder: str, home: str, barrier: Any, answers: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAI_HOME", home)
        barrier.wait()
        done, found = refreshed(Path(folder), train_at_share=0.1)
        answers.put((done.trains, [labels.digest for _, _, labels in found]))
        barrier.wait()


def test_two_refreshes_at_once_start_one_training(tmp_path: Path) -> None:
    for name in "abcd":
        write(tmp_path / f"{name}.jsonl", f"A dog and a cat {name}", "a bus")
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(2), context.Queue()
    arguments = (str(tmp_path), str(tmp_path / "home"), barrier, answers)
    processes = [context.Process(target=start, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(trains for trains, _ in found) == [False, True]
    assert found[0][1] == found[1][1]


def test_another_vocabulary_changes_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAI_HOME", str(tmp_path))
    parts = [part("a", "1", 5, dog=1)]
    publish(profile_of(tmp_path), "v1", parts)
    assert publish(profile_of(tmp_path), "v1", parts).since_last.is_none
    assert publish(profile_of(tmp_path), "v2", parts).since_last.changed == ("a",)
    shutil.rmtree(tmp_path / "refresh")
    assert publish(profile_of(tmp_path), "v2", parts).since_last.new == ("a",)
