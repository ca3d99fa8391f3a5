"""What a scoring depends on: all that its scores could come from, also through a blend's parts."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tasks.images.image_sets import list_images
from tasks.labels.vocabulary import load_vocabulary, vocabulary_path
from tasks.profile import Profile, load_profile
from tasks.results.score import Scoring


@dataclass(frozen=True)
class Finished:
    """A stage's digest, which is all that a key takes of it."""

    digest: str


def profile_of(**changes: Any) -> Profile:
    settings = {
        "run": ["zero-shot-centred", "zero-shot", "linear-probe", "blend"],
        "labelled": {"name": "few", "annotations": "instances_demo.json", "folder": "images"},
        "methods.blend.parts": ["zero-shot-centred", "linear-probe"],
    }
    return load_profile("tests/small/small.toml", settings | changes)


@pytest.fixture
def scoring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scoring:
    monkeypatch.setenv("TAI_HOME", str(tmp_path / "home"))
    profile = profile_of()
    vocabulary = load_vocabulary(vocabulary_path(profile))
    image_set = profile.images[0]
    listed = list_images.fn(profile, vocabulary, image_set)
    images: Any = Finished("images")
    return Scoring(profile.method("blend"), image_set, vocabulary, listed, images, listed)


def test_every_part_counts_in_the_key(scoring: Scoring) -> None:
    recipe = scoring.recipe("score", "tasks.results.score")
    parts = [part["method"] for part in recipe.values["parameters"]["parts"]]
    assert parts == ["zero-shot-centred", "linear-probe"]
    alone = replace(scoring, method=profile_of().method("zero-shot-centred"))
    assert alone.recipe("score", "tasks.results.score").key != recipe.key
    changes = {"methods.zero-shot-centred.context": 0.3, "methods.blend.rate": 0.5}
    keys = {recipe.key}
    for setting, value in changes.items():
        changed = replace(scoring, method=profile_of(**{setting: value}).method("blend"))
        keys.add(changed.recipe("score", "tasks.results.score").key)
    assert len(keys) == 3


def test_code_of_every_part_counts(scoring: Scoring) -> None:
    apart = replace(scoring, method=type(scoring.method)(scoring.method.settings, []))
    whole, without = (each.recipe("score", "tasks.results.score") for each in (scoring, apart))
    assert whole.code != without.code
