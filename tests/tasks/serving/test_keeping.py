"""What is cleared away, and what stays; and that no flipped or cut byte goes unnoticed."""

import fcntl
import json
import os
import random
import time
from pathlib import Path

import pytest

from flows.workspace import clean, verify
from tasks import integrity
from tasks.results import track
from tasks.serving.keeping import stages
from tasks.workspace import Recipe, Result, Stage, run_stage


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("TAI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def make(kind: str, name: str) -> Stage:
    def work(out: Path) -> Result:
        (out / "a.bin").write_bytes(name.encode() * 100)
        return Result({"n": 1}, {})

    return run_stage(Recipe(kind, "code", {}, {"name": name}), work)


def age(folder: Path, days: float = 3) -> None:
    old = time.time() - days * 24 * 3600
    for path in [*folder.glob("*"), folder]:
        os.utime(path, (old, old))


def logged(stage: Stage, *, registered: bool = False) -> None:
    with track.run("run") as run:
        run.client.log_text(run.run_id, json.dumps({"fitted": {"x": stage.key}}), track.STAGES)
        run.config({"data": f"/elsewhere/{stage.key}"})
        run.tag("model", "models:/tai-x/1")
        if registered:
            run.client.create_registered_model("tai-x")
            run.client.create_model_version("tai-x", "file:///nowhere", run.run_id)


def test_only_what_nothing_needs_goes(home: Path) -> None:
    model, older, last = make("fit", "model"), make("fit", "older"), make("fit", "last")
    new, unused = make("label", "new"), make("label", "unused")
    logged(model, registered=True)
    logged(older)
    logged(last)
    building, killed, damaged = (
        home / "label" / name for name in (".a.building", ".b.building", ".c.1.damaged")
    )
    for folder in (building, killed, damaged):
        folder.mkdir()
        (folder / "part").write_bytes(bytes(1000))
    for folder in (
        *(each.place for each in (model, older, last, unused)),
        building,
        killed,
        damaged,
    ):
        age(folder)
    with (home / "label" / ".a.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        would = {each.folder for each in clean(runs=1)}
        assert would == {older.place, unused.place, killed, damaged}
        assert all(folder.exists() for folder in would)
        found = clean(runs=1, does=True)
        assert {each.folder for each in found} == would
        assert sum(each.size for each in found) > 2 * 1000
    assert not any(folder.exists() for folder in would)
    assert all(each.place.exists() for each in (model, last, new))
    assert building.exists()
    # its process is gone now
    assert [each.folder for each in clean(runs=1)] == [building]
    # and what went is made anew
    assert make("label", "unused").digest == unused.digest


def test_partitions_stay_with_the_sets_that_lie_in_them() -> None:
    used, unused = make("features", "used"), make("features", "unused")

    def work(out: Path) -> Result:
        (out / "images").write_text("x")
        return Result({}, {"parts": [used.key]})

    images = run_stage(Recipe("images", "code", {}, {}), work)
    logged(images)
    for stage in (used, unused, images):
        age(stage.place)
    assert [each.folder for each in clean(runs=1)] == [unused.place]


def test_random_flips_and_cuts_over_a_home_are_all_found() -> None:
    whole = [make("fit", str(number)) for number in range(8)]
    assert not verify()
    files = [path for stage in whole for path in stage.place.glob("*")]
    chance = random.Random(14)
    for number in range(150):
        path = chance.choice(files)
        content = path.read_bytes()
        at = chance.randrange(len(content))
        changed = bytearray(content)
        changed[at] ^= 1 << chance.randrange(8)
        path.write_bytes(changed if number < 100 else content[:at])
        integrity._checked.clear()
        (sentence,) = verify()
        assert str(path) in sentence
        path.write_bytes(content)
    assert not verify()
    assert len(list(stages())) == 8
