"""Every page but the report, looked at by a browser: three widths, light and dark."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks.labels.vocabulary import load_vocabulary, vocabulary_path
from tasks.pages.comparison import page as comparison
from tasks.pages.gallery import Gallery
from tasks.pages.report import report
from tasks.pages.study import page_of
from tasks.profile import load_profile
from tasks.results import studies
from tasks.results.compare import verdicts
from tests.browser import Page, browser
from tests.tasks.pages.look import faults_of
from tests.tasks.pages.test_quality import quality_of
from tests.tasks.results.test_compare import candidate
from tests.tasks.road import tagged, whole_run

LONG = "a-very-long-name-of-a-file-without-any-place-to-break-it-" * 3 + ".jpg"
MANY = [f"class number {number}" for number in range(40)]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("chromium")) as page:
        yield page


def rows_of(folder: Path, count: int) -> list[dict[str, Any]]:
    """Rows of tags: long names, no tag, a tag of a long word, many tags, files that are none."""
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    rows = []
    for number in range(count):
        file = f"{number}-{LONG}" if number % 5 == 0 else f"{number}.jpg"
        if number < 120:
            Image.fromarray(np.roll(noise, number)).save(folder / file)
        labels = [[], ["cat"], MANY, ["Donaudampfschifffahrtsgesellschaftskapitän" * 2]][number % 4]
        tags = [{"label": label, "score": 0.5} for label in labels]
        reason = "not a whole image" if number % 50 == 7 else None
        nearest = {"label": MANY[number % 40], "score": 0.1}
        rows.append({"file": file, "tags": tags, "nearest": nearest, "reason": reason})
    return rows


ABOUT = {
    "address": "tai-mine/3",
    "alias": "@best",
    "run": "0" * 32,
    "method": "tai-dpt",
    "summary": "prompts learned from captions",
    "backbone": "RN50",
    "weights": "",
    "random": True,
    "review": f"python -m flows.review '{LONG}' --model tai-mine/3",
}


@pytest.mark.parametrize("count", [3, 120, 5000])
def test_a_gallery(tmp_path: Path, opened: Page, count: int) -> None:
    path = tmp_path / "index.html"
    rows = rows_of(tmp_path, count)
    Gallery(path, tmp_path, count, ABOUT).add(rows)
    assert faults_of(opened, path) == []
    others = {"notes.txt": "no picture", LONG: "hidden"}
    Gallery(path, tmp_path, count, ABOUT, "Each has its tags.", others).add(rows)
    assert faults_of(opened, path) == []
    assert opened.ask("document.querySelectorAll('.card').length") == min(
        count - count // 50 - (count % 50 > 7), 120
    )


def test_a_quality_page(tmp_path: Path, opened: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAI_HOME", str(tmp_path / "home"))
    classes = [*MANY, "Donaudampfschifffahrtsgesellschaftskapitän"]
    with (tmp_path / "v.csv").open("w", newline="") as file:
        names = [f"thing{chr(97 + n // 20)}{chr(97 + n % 20)}" for n in range(len(classes))]
        rows = [["class", "synonym"], *zip(classes, names, strict=True), ["", "nothing"]]
        csv.writer(file).writerows(rows)
    with (tmp_path / "captions.csv").open("w", newline="") as file:
        texts = [f"A {a} beside the {b} {LONG}, gadget" for a in names for b in names if a < b]
        csv.writer(file).writerows([["text"], *([text] for text in texts)])
    source = {"source": "t", "form": "table", "path": str(tmp_path / "captions.csv")}
    stage = quality_of(tmp_path, sources=[source])
    assert faults_of(opened, stage.file("index.html")) == []


def test_a_comparison_and_a_study(tmp_path: Path, opened: Page) -> None:
    runs = [candidate(tmp_path, "weak", 0.5), candidate(tmp_path, "a-strong-one-" * 6, 3.0)]
    (tmp_path / "compare.html").write_text(comparison(runs, verdicts(runs)))
    assert faults_of(opened, tmp_path / "compare.html") == []
    study = studies.studies()["captions"][0]
    found = {
        variant: [{("same", "one"): 10.0, ("shift", "one"): 1.0}] * 3 for variant in study.variants
    }
    rows = studies.table_of(study, found, {"same": "3 of 6", "shift": "6 of 6"})
    page = page_of(study, load_profile("coco-mini"), rows, [], "python -m flows.ablations captions")
    (tmp_path / "study.html").write_text(page)
    assert faults_of(opened, tmp_path / "study.html") == []


def test_a_run_without_labels(
    tmp_path: Path, opened: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAI_HOME", str(tmp_path / "home"))
    mine = {"name": "mine", "form": "folder", "folder": "images"}
    changes = {"images": [mine], "run": ["zero-shot-centred"]}
    profile = load_profile("tests/small/small.toml", changes)
    outcome = tagged(profile, whole_run(profile))
    vocabulary = load_vocabulary(vocabulary_path(profile))
    page = report.fn(profile, vocabulary, outcome, "again").file("index.html")
    assert faults_of(opened, page) == []
