"""The methods of a run stand under what they learned from, told by the stages' own counts."""

from pathlib import Path

import pytest

from tasks.profile import load_profile
from tasks.results.groups import groups_of
from tests.tasks.road import whole_run


def test_every_method_stands_under_what_it_learned_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAI_HOME", str(tmp_path))
    images = load_profile("tests/small/small.toml").images[0].model_dump()
    settings = {
        "run": ["tip-adapter", "tai-dpt", "zero-shot", "blend", "zero-shot-centred"],
        "labelled": images | {"name": "labelled", "known": 0.75},
        "methods.tai-dpt.epochs": 1,
    }
    profile = load_profile("tests/small/small.toml", settings)
    outcome = whole_run(profile)
    groups = groups_of(profile, outcome)
    count = outcome.fitted["tip-adapter"].counts["images"]
    taught = f"{count} labelled images (75 % of labels known)"
    assert list(groups.items()) == [
        ("nothing", ["zero-shot", "zero-shot-centred"]),
        ("captions", ["tai-dpt"]),
        (taught, ["tip-adapter"]),
        (f"captions and {taught}", ["blend"]),
    ]
    assert outcome.fitted["blend"].counts == {"images/reference": count}
