"""Images of which no label is known: tagged, beside measured sets, alone, or no images at all."""

import csv
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from flows.doors import check
from tasks.errors import InputError
from tasks.pages.report import report
from tasks.profile import load_profile
from tasks.results.outcome import found_again
from tests.tasks.road import tagged, whole_run

from .command import ROOT, run_python

SMALL = ROOT / "tests" / "small"
FEW = {"methods.tai-dpt.epochs": 1}
UNLABELLED = {"name": "mine", "form": "folder", "folder": "images"}
MEASURED = {"name": "small", "annotations": "instances_demo.json", "folder": "images"}
IMAGES = {
    "unlabelled alone": [UNLABELLED],
    "beside measured ones": [UNLABELLED, MEASURED],
    "no images": [],
}


class Headings(HTMLParser):
    """What stands between one heading and the next."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sections: list[tuple[str, list[str]]] = []
        self._tag = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        if tag in ("h1", "h2", "h3"):
            self.sections.append((tag, []))
        elif self.sections and tag in ("img", "svg", "td"):
            self.sections[-1][1].append(dict(attrs).get("alt") or tag)

    def handle_data(self, data: str) -> None:
        if self.sections and self._tag not in ("h1", "h2", "h3", "style") and data.strip():
            self.sections[-1][1].append(data.strip())

    def over_nothing(self) -> int:
        """How many headings have nothing below them, be it a deeper heading."""
        following = [level for level, _ in self.sections[1:]] + ["h1"]
        return sum(
            not content and after <= level
            for (level, content), after in zip(self.sections, following, strict=True)
        )


@pytest.mark.parametrize("images", IMAGES.values(), ids=IMAGES)
def test_the_page_shows_what_there_is_and_no_more(
    images: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAI_HOME", str(tmp_path))
    profile = load_profile("tests/small/small.toml", {**FEW, "images": images})
    vocabulary = check(profile)
    outcome = tagged(profile, whole_run(profile))
    assert found_again(outcome.keys()).keys() == outcome.keys()
    assert set(outcome.tags) == {each["name"] for each in images}
    measured = {each["name"] for each in images if "annotations" in each}
    assert all(set(found) == measured for found in outcome.evaluations.values())
    text = report.fn(profile, vocabulary, outcome, "again").file("index.html").read_text()
    told = re.sub(r"<code>.*?</code>", "", text)
    assert not re.search(r"\bnan\b|\bNone\b|\binf\b", told)
    assert not Headings(text).over_nothing()
    assert ("Scores on small" in text) == bool(measured)
    assert ("mAP" in told) == bool(measured)
    assert ("Tags of mine" in text) == (UNLABELLED in images)
    assert ("Where it looks" in text) == bool(images)
    assert "Words that a local prompt answers to" in text
    if UNLABELLED in images:
        assert "That is few: thresholds take at least" in text
        rows = pq.read_table(outcome.tags["mine"].file("tags.parquet")).to_pylist()
        assert [row["file"] for row in rows] == sorted(p.name for p in SMALL.glob("images/*"))
        top = min(3, len(vocabulary.classes))
        assert all(len(row["tags"]) == top for row in rows)


def test_known_labels_change_no_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAI_HOME", str(tmp_path))
    both = [UNLABELLED, MEASURED]
    profile = load_profile("tests/small/small.toml", {"run": ["zero-shot"], "images": both})
    tags = tagged(profile, whole_run(profile)).tags
    found = {
        name: {
            row["file"]: row["tags"]
            for row in pq.read_table(stage.file("tags.parquet")).to_pylist()
        }
        for name, stage in tags.items()
    }
    shared = found["mine"].keys() & found["small"].keys()
    assert shared
    assert all(found["mine"][file] == found["small"][file] for file in shared)


def test_a_run_without_labels_prints_its_tags_and_registers_its_model(tmp_path: Path) -> None:
    data = tmp_path / "small"
    shutil.copytree(SMALL, data)
    (data / "images" / "notes.txt").write_text("no image")
    (data / "images" / "broken.jpg").write_bytes(b"no image")
    settings = [f"{name}={json.dumps(value)}" for name, value in FEW.items()]
    settings.append(f"images={json.dumps([UNLABELLED])}")
    arguments = [part for setting in settings for part in ("--set", setting)]
    done = run_python(
        tmp_path,
        *("-m", "flows.tai", "--profile", "tests/small/small.toml", "--data", str(data)),
        *arguments,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "mAP" not in done.stdout
    assert "passed over, as no images: 1 .txt" in done.stderr + done.stdout
    (table,) = re.findall(r"^tags: (.*)$", done.stdout, re.MULTILINE)
    (page,) = re.findall(r"^see it: (.*)$", done.stdout, re.MULTILINE)
    (model,) = re.findall(r"--model (\S+)$", done.stdout, re.MULTILINE)
    files = {row["file"] for row in csv.DictReader(Path(table).read_text().splitlines())}
    assert files == {path.name for path in SMALL.glob("images/*")}
    text = Path(page).read_text()
    assert "1 more cannot be read" in text
    assert "1 other file passed over" in text
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    version = client.get_model_version(*model.split("/"))
    assert "mAP/merged" not in version.tags
    assert "measured" not in version.tags


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images": [{"name": "x", "folder": "images"}]}, 'labels are form = "folder"'),
        ({"images": [{**UNLABELLED, "annotations": "empty.csv"}]}, "no image has a class"),
        ({"images": [{**UNLABELLED, "annotations": "foreign.csv"}]}, "the annotations name zebra"),
        ({"images": [{**UNLABELLED, "folder": "nowhere"}]}, "no such folder"),
        ({"labelled": UNLABELLED}, "`labelled` needs `annotations`"),
    ],
)
def test_what_is_no_set_is_refused_at_the_door(
    settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    data = tmp_path / "small"
    shutil.copytree(SMALL, data)
    first = next((data / "images").iterdir()).name
    (data / "empty.csv").write_text(f"file,class\n{first},\n")
    (data / "foreign.csv").write_text(f"file,class\n{first},zebra\n")
    with pytest.raises(InputError, match=message) as caught:
        check(load_profile("tests/small/small.toml", {"data": str(data), **settings}))
    assert "\n" not in str(caught.value)
