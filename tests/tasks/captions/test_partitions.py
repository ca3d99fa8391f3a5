"""Captions in partitions: what is encoded again when files come, and when nothing is stored."""

import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch

from models.examples import CaptionBatch
from tasks.backbone.loading import load
from tasks.captions import partitions
from tasks.captions.encode import encode_partition, stored_partitions
from tasks.captions.features import open_captions
from tasks.labels.vocabulary import load_vocabulary, vocabulary_path
from tasks.methods.fit import Lesson, fit_method
from tasks.profile import Profile, load_profile
from tasks.workspace import Stage
from tests.tasks.road import choose, encode_all

ROOT = Path(__file__).parents[3]
TEXTS = ["A dog.", "two cats near a house in the old town", "nothing", "a boat and a car", "a tree"]


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Profile:
    monkeypatch.setenv("TAI_HOME", str(tmp_path / "home"))
    write_captions(tmp_path, "b", TEXTS)
    write_captions(tmp_path, "c", [f"{text} again" for text in TEXTS])
    source = {"source": "mine", "form": "table", "path": f"{tmp_path}/*.jsonl"}
    changes = {"sources": [source], "captions.templates": False, "device": "cpu"}
    return load_profile(str(ROOT / "tests/small/small.toml"), changes)


def write_captions(folder: Path, name: str, texts: list[str]) -> None:
    (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))


def chosen(profile: Profile) -> Stage:
    _, _, choice = choose(profile)
    return choice


def batch_of_all(profile: Profile, choice: Stage, features: list[Stage]) -> CaptionBatch:
    captions = open_captions(
        choice.folder,
        [stage.folder for stage in features],
        load_vocabulary(vocabulary_path(profile)).classes,
        load(profile).backbone,
        "float16",
    )
    return captions.batch(torch.arange(len(captions)), torch.device("cpu"))


def test_a_new_file_is_encoded_alone(profile: Profile, tmp_path: Path) -> None:
    first = chosen(profile)
    assert first.counts["captions/selected"] == 8
    assert [stage.fresh for stage in encode_all(profile, first)] == [True, True]
    # it comes first in order, so every other partition gets another number
    write_captions(tmp_path, "a", ["a dog in a car", "a cat"])
    second = chosen(profile)
    assert [stage.fresh for stage in encode_all(profile, second)] == [True, False, False]
    ids = [
        row["caption_id"]
        for path in sorted(second.folder.glob("part-*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]
    files = [caption_id.split("/")[1] for caption_id in ids]
    assert sorted(files) == files
    assert len(set(ids)) == 10


def test_partitions_are_the_same_captions_as_one(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = chosen(profile)
    expected = batch_of_all(profile, whole, encode_all(profile, whole))
    monkeypatch.setattr(partitions, "CAPTIONS_PER_PARTITION", 3)
    monkeypatch.setenv("TAI_HOME", str(whole.folder / "elsewhere"))
    cut = chosen(profile)
    features = encode_all(profile, cut)
    assert [part.figures["captions_per_s"] > 0 for part in features] == [True] * 4
    found = batch_of_all(profile, cut, features)
    assert found.tokens.hidden.equal(expected.tokens.hidden)
    assert found.tokens.norms.equal(expected.tokens.norms)
    assert found.global_.equal(expected.global_)
    assert found.labels.equal(expected.labels)


def test_prompts_have_the_same_bytes_without_a_store(profile: Profile) -> None:
    few = load_profile(profile, {"methods.tai-dpt.batch": 3, "captions.held_out": 0})
    vocabulary = load_vocabulary(vocabulary_path(few))
    choice = chosen(few)
    stored, anew = (
        fit_method.fn(few, vocabulary, "tai-dpt", Lesson(choice, tuple(features)), lambda *_: None)
        for features in (encode_all(few, choice), [])
    )
    assert anew.fresh
    assert anew.digest == stored.digest


def test_too_large_features_are_not_stored_unless_they_are_there(
    profile: Profile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    choice = chosen(profile)
    needed = choice.figures["store_bytes"]
    small = load_profile(profile, {"captions.store_gb": 0.9 * sum(needed.values()) / 1e9})
    with caplog.at_level(logging.WARNING):
        assert stored_partitions(small, choice) == []
    assert "captions are encoded anew for each step" in caplog.text
    free = 1.5 * needed["part-00001"]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert stored_partitions(profile, choice) == []
    # one of them is there already, and the other has room
    first = encode_partition.fn(profile, choice, "part-00000")
    assert stored_partitions(profile, choice) == list(needed)
    size = sum(path.stat().st_size for path in first.folder.glob("shard-*.arrow"))
    # four captions' offsets and numbers, and Arrow's own words around them
    assert 0 < size - needed["part-00000"] < 3000
