"""Class names and pictures in, tags out: README's own words in a fresh folder, and odd input."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from flows import new
from tasks.labels.vocabulary import load_vocabulary
from tasks.profile import load_profile
from tasks.serving.tagger import BY_MARKS
from tests import prefect_homes

from .command import ROOT

NAMES = [
    "glorp", "blue zindle", "wumpus", "TV/monitor", "bow (weapon)", "fire_hydrant", "Café", "quux",
    "hot dog", "zorb tree", "Kitchen & dining room table", "flim",
]  # fmt: skip

ODD = [
    "Dog", "dog", "TV/monitor", "bow (weapon)", "Café", "fire_hydrant",
    "Kitchen & dining room table", "狗", "hot dog", "HotDog", "ski", "skis",
]  # fmt: skip
"""shared/cases/classes/odd2.txt"""

CLIP = {
    "TAI_MODEL": str(ROOT / "demo" / "clip.json"),
    "TAI_WEIGHTS": str(ROOT / "demo" / "clip.safetensors"),
}
"""Weights that are here; OpenAI's are not in a repository."""


def run(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """`python` with `arguments` in a folder of one's own; `more` is added to the environment."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TAI_HOME": str(folder / ".tai"),
        "PREFECT_HOME": str(folder / ".prefect"),
        "HOME": str(folder),
        "HF_HOME": str(folder / "hub"),
        # nothing answers there: a machine without a network
        "HTTP_PROXY": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1,localhost",
        "COLUMNS": "200",
        "OMP_NUM_THREADS": "1",
        **more,
    }
    environment.pop("PREFECT_API_URL", None)
    prefect_homes.begin(folder / ".prefect")
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    prefect_homes.leave(folder / ".prefect")
    return done


def write_pictures(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "mine.txt").write_text("\n".join(NAMES), encoding="utf-8")
    write_pictures(tmp_path / "my" / "pictures", 10)
    return tmp_path


def test_odd_names_make_a_vocabulary_and_all_clashes_are_told(mine: Path) -> None:
    (mine / "odd.txt").write_text("\n".join(ODD), encoding="utf-8")
    done = run(mine, "-m", "flows.new", "--classes", "odd.txt", "--images", "my/pictures")
    assert done.returncode == 0, done.stderr
    classes = load_vocabulary(mine / "odd.csv").classes
    assert classes == ("Dog", *ODD[2:9], "ski")
    for name in ("dog", "HotDog", "skis"):
        assert f"left out: class '{name}'" in done.stdout
    profile = load_profile(str(mine / "odd.toml"))
    assert [source.form for source in profile.sources] == ["composed"]
    # no network, no weights: told in one sentence, with the address and the place
    assert re.search(
        r"no weights of RN50-quickgelu .*RN50\.pt .*~/\.cache/clip/RN50\.pt", done.stdout
    )
    assert "next: look at odd.csv, then python -m flows.tai --profile odd.toml" in done.stdout
    again = run(mine, "-m", "flows.new", "--classes", "odd.txt", "--images", "my/pictures")
    assert again.returncode == 1
    assert re.fullmatch(r"error: .*odd\.csv: is there already; .*\n", again.stderr)


def test_bad_input_is_one_sentence_and_nothing_is_written(
    mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(mine)
    monkeypatch.setenv("TAI_HOME", str(mine / ".tai"))
    (mine / "numbers.csv").write_text("a,b\n1,2\n")
    (mine / "empty").mkdir()
    for arguments, message in (
        (["--classes", "gone.txt", "--images", "my/pictures"], "gone.txt: cannot be read"),
        (["--classes", "mine.txt", "--images", "gone"], "gone: no such folder"),
        (["--classes", "mine.txt", "--images", "empty"], "no image"),
        (
            ["--classes", "mine.txt", "--images", "my/pictures", "--captions", "numbers.csv"],
            "numbers.csv: no captions found",
        ),
        (["--classes", "mine.txt", "--images", "my/pictures", "--out", "x.txt"], "a .toml file"),
        (
            ["--classes", "mine.txt", "--images", "my/pictures", "--weights", "gone.pt"],
            "no weights file",
        ),
    ):
        # in this process: one of its own takes seconds, and the first below has one
        monkeypatch.setattr(sys, "argv", ["flows.new", *arguments])
        with pytest.raises(SystemExit) as ended:
            new.main()
        assert re.fullmatch(r"error: [^\n]+", str(ended.value.code))
        assert message in str(ended.value.code)
        assert capsys.readouterr().err == ""
    done = run(mine, "-m", "flows.new", "--classes", "gone.txt", "--images", "my/pictures")
    assert done.returncode == 1
    assert re.fullmatch(r"error: .*gone\.txt: cannot be read[^\n]*\n", done.stderr)
    assert not (mine / "mine.csv").exists()
    assert not (mine / "mine.toml").exists()


def test_without_weights_a_run_is_asked_for(mine: Path) -> None:
    done = run(mine, "-m", "flows.new", "--classes", "mine.txt", "--images", "my/pictures", "--run")
    assert done.returncode == 1
    assert "not run, for without weights every tag means nothing" in done.stderr
    assert (mine / "mine.toml").is_file()


def commands_of_readme() -> list[list[str]]:
    """What README's section on one's own pictures tells to type."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("## Your own pictures")[2].partition("\n## ")[0]
    lines = [
        line.partition("#")[0]
        for block in re.findall(r"```\n(.*?)```", section, re.DOTALL)
        for line in block.splitlines()
        if line.startswith(".venv/bin/python ")
    ]
    return [shlex.split(line)[1:] for line in lines]


def test_readmes_own_pictures_word_for_word(mine: Path) -> None:
    first, second, third, *more = commands_of_readme()
    for command in (first, second, third):
        done = run(mine, *command, **CLIP)
        assert done.returncode == 0, done.stderr
    assert "check by hand: " in done.stdout
    check_tags(mine, 1)
    mark_by_hand(mine)
    # then with captions of one's own
    captions = [f"a {name} beside a {other}" for name in ("glorp", "wumpus") for other in NAMES]
    captions += [f"two people look at {n} {name}s" for n in range(23) for name in NAMES]
    (mine / "captions.txt").write_text("\n".join(captions), encoding="utf-8")
    assert len(captions) == 300
    for command in more:
        done = run(mine, *command, **CLIP)
        assert done.returncode == 0, done.stderr
    check_tags(mine, 2)


def mark_by_hand(folder: Path) -> None:
    """Every picture shows the first class and no other, says somebody; the figures follow."""
    (drawn,) = (folder / ".tai" / "review").glob("*/sample.parquet")
    files = pq.read_table(drawn)["file"].to_pylist()
    assert sorted(files) == [f"{number}.png" for number in range(10)]
    lines = ["review,file,class,mark", *(f"{drawn.parent.name},{file},glorp,1" for file in files)]
    (folder / "marks.csv").write_text("\n".join(lines))
    done = run(folder, "-m", "flows.review", "--marks", "marks.csv")
    assert done.returncode == 0, done.stderr
    assert "of all 10 images, by 10 of them" in done.stdout
    (shares,) = (folder / ".tai" / "marks").glob("*/shares.csv")
    rows = {tuple(row[:2]): row[2:5] for row in csv.reader(shares.read_text().splitlines())}
    # all were looked at: nothing is left to guess
    value, low, high = rows["all classes", "recall"]
    assert value == low == high
    # they are kept as the next version of the model
    cards = (folder / ".tai").rglob("tagger/card.json")
    (card,) = [card for card in map(json.loads, map(Path.read_text, cards)) if BY_MARKS in card]
    moved = json.loads(shares.with_name("thresholds.json").read_text())
    assert dict(zip(card["classes"], card["thresholds"], strict=True)) == moved


def check_tags(folder: Path, runs: int) -> None:
    """As many runs have tagged the ten pictures and left a page; nothing was labelled."""
    pages = list((folder / ".tai" / "report").glob("*/index.html"))
    assert len(pages) == runs
    tables = list((folder / ".tai").glob("*/*/tags.parquet"))
    assert tables
    for table in tables:
        assert pq.read_table(table).num_rows == 10
    for profile in folder.glob("*.toml"):
        assert not re.search(r"^annotations", profile.read_text(), re.MULTILINE)
