"""Warm starts: from the last night's weights, found again the same night, and told by the key."""

from pathlib import Path

import pytest
import torch

from models.method import Setup
from models.methods.close import Close
from models.methods.comc import CoMC
from tasks.captions.sentences import encode_sentences
from tasks.labels.vocabulary import load_vocabulary, vocabulary_path
from tasks.methods.fit import Lesson, fit_method, history_of
from tasks.methods.state import read_state
from tasks.profile import Profile, load_profile
from tasks.workspace import Stage
from tests.models.conftest import small_backbone
from tests.tasks.road import choose

EPOCHS = {"refresh.warm_epochs": 1, "methods.close.epochs": 3, "run": ["close"]}


def night(per_class: int, **settings: object) -> tuple[Profile, Stage]:
    """A fit of `close` on so many captions of each class."""
    changed = {"captions.per_class": per_class, **EPOCHS, **settings}
    profile = load_profile("tests/small/small.toml", changed)
    _, _, choice = choose(profile)
    parts = list(choice.figures["store_bytes"])
    sentences = [encode_sentences.fn(profile, choice, part) for part in parts]
    lesson = Lesson.of_captions(choice, "sentences", sentences)
    vocabulary = load_vocabulary(vocabulary_path(profile))
    return profile, fit_method.fn(profile, vocabulary, "close", lesson, lambda *_: None)


def test_each_night_begins_at_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAI_HOME", str(tmp_path))
    _, first = night(3)
    assert len(history_of(first)) == 3
    assert "start" not in first.manifest["inputs"]
    # the same night again: found finished
    assert night(3)[1].key == first.key
    _, second = night(6)
    assert second.manifest["inputs"]["start"] == first.digest
    assert len(history_of(second)) == 1
    _, again = night(6)
    assert again.key == second.key
    assert not again.fresh
    _, third = night(4)
    assert third.manifest["inputs"]["start"] == second.digest
    # other settings, another seed: no start
    for settings in ({"methods.close.pull": 0.5}, {"seed": 5}):
        assert "start" not in night(5, **settings)[1].manifest["inputs"]
    # a record that is broken, or whose fit is gone, is none
    (record,) = (tmp_path / "refresh").glob("*.json")
    record.write_text("{")
    assert "start" not in night(6)[1].manifest["inputs"]


def test_without_it_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAI_HOME", str(tmp_path))
    _, cold = night(3, **{"refresh.warm_epochs": None})
    assert len(history_of(cold)) == 3
    assert not (tmp_path / "refresh").exists()


@pytest.mark.parametrize("method", [Close(Close.Settings(hidden=4)), CoMC()])
def test_classes_keep_their_weights_and_new_ones_have_their_own(method: Close | CoMC) -> None:
    backbone = small_backbone()
    old = method.learner(Setup(backbone, ("dog", "cat", "kite"), 1))
    with torch.no_grad():
        for number, parameter in enumerate(old.parameters()):
            drawn = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
            parameter.add_(drawn.to(parameter))
    new = method.learner(Setup(backbone, ("kite", "bus", "dog"), 1))
    own = {name: value.clone() for name, value in new.state().items()}
    new.start_from(old.state(), torch.tensor([2, -1, 0]))
    name = "classes" if isinstance(method, Close) else "weight"
    found, before = new.state()[name], old.state()[name]
    torch.testing.assert_close(found[[0, 2]], before[[2, 0]])
    torch.testing.assert_close(found[1], own[name][1])
    if isinstance(method, Close):
        assert new.state()["outer"].equal(old.state()["outer"])


def test_the_state_of_a_warm_fit_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAI_HOME", str(tmp_path))
    night(3)
    profile, second = night(6)
    method = profile.method("close")
    vocabulary = load_vocabulary(vocabulary_path(profile))
    method.check_state(read_state(second.folder), len(vocabulary.classes), 64)
