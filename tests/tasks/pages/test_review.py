"""The review page in a real browser: marks made by key and by click, saved, read back, used."""

import csv
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.errors import InputError
from tasks.images.annotations import read_image_set
from tasks.pages.review import review
from tasks.results import marked
from tasks.results.review import Tagged, read_marks, read_review, tagged
from tasks.results.tags import THRESHOLDS
from tasks.workspace import Stage
from tests.browser import Page, browser
from tests.tasks.pages.look import faults_of

FILES = [
    "<script>alert(1)<.png",
    "=1+1,\"q\"; 'x'.png",
    "two\nlines.png",
    "ä ö 狗.png",
    "plain.png",
    "sub/<img src=x onerror=alert(1)>.png",
    "none.png",
    "more.png",
]
CLASSES = (
    "<b>dog</b>",
    "TV/monitor",
    'a "quoted", class',
    "x|y; z",
    "=cmd()",
    "狗",
    *"abcdefghijklmnopqrstuvwxyz",
)

UNANSWERED = (
    "document.querySelector('#tags .current:not(:has([aria-pressed=true])) .name')?.textContent"
)


def make_tagged(folder: Path) -> Tagged:
    """Eight pictures; the last but one without a tag, one that cannot be read."""
    rng = np.random.default_rng(0)
    for file in FILES:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (90, 120, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / file, format="PNG")
    (folder / "more.png").write_bytes(b"gone bad")
    scores = torch.from_numpy(rng.normal(size=(len(FILES), len(CLASSES)))).float()
    scores[6] -= 9
    thresholds = torch.full((len(CLASSES),), 1.2, dtype=torch.float64)
    return tagged(
        name="<i>mine</i>",
        folder=folder,
        files=FILES,
        classes=CLASSES,
        scores=scores,
        thresholds=thresholds,
        run_id=None,
        model=None,
    )


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Tagged, Stage]]:
    root = tmp_path_factory.mktemp("review")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAI_HOME", str(root / "home"))
        found = make_tagged(root / "<pictures>")
        yield found, review.fn(found, 60, 0)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


def test_it_looks_right(drawn: tuple[Tagged, Stage], page: Page) -> None:
    assert faults_of(page, drawn[1].file("index.html")) == []


def saved(folder: Path) -> Path:
    """The file that the browser saves, once it is whole."""
    path, deadline = folder / "marks.csv", time.monotonic() + 20
    while not path.is_file():
        assert time.monotonic() < deadline, "nothing was saved"
        time.sleep(0.05)
    return path


def current(page: Page) -> str:
    return str(page.ask("document.getElementById('file').textContent"))


def truth_of(found: Tagged, file: str) -> dict[str, str]:
    """What a person would say of a picture: every other tag is right, and one was missed."""
    row = found.files.index(file)
    tags = [c for c in range(len(CLASSES)) if found.given[row, c]]
    answers = {CLASSES[c]: "10?"[place % 3] for place, c in enumerate(tags)}
    missed = [c for c in range(len(CLASSES)) if c not in tags]
    return answers | ({CLASSES[missed[row]]: "1"} if row % 2 else {})


def test_marks_are_made_by_key_saved_and_read_back(
    drawn: tuple[Tagged, Stage], page: Page, tmp_path: Path
) -> None:
    found, stage = drawn
    page.complaints.clear()
    page.keep_downloads(tmp_path)
    page.open(stage.file("index.html"), width=1200)
    assert page.ask("document.getElementById('left').textContent") == "0 done, 7 left"
    # what is not answered is asked for; nothing is passed by one key too many
    first = current(page)
    page.press("Enter", 13)
    assert current(page) == first
    assert page.ask("document.getElementById('told').textContent").startswith("Yes, no or")
    said: dict[str, dict[str, str]] = {}
    for _ in range(7):
        file = current(page)
        said[file] = truth_of(found, file)
        while name := page.ask(UNANSWERED):
            page.press({"1": "y", "0": "n", "?": "u"}[said[file][name]])
        given = page.ask("[...document.querySelectorAll('#tags .name')].map(e => e.textContent)")
        for missed in set(said[file]) - set(given):
            page.press("/")
            page.type(missed)
            page.press("Enter", 13)
        page.press("Enter", 13)
    assert page.ask("document.getElementById('left').textContent") == "All 7 done"
    page.press("s")
    path = saved(tmp_path)
    assert page.complaints == []
    with path.open(encoding="utf-8-sig", newline="") as file_:
        rows = list(csv.DictReader(file_))
    read: dict[str, dict[str, str]] = {file: {} for file in said}
    for row in rows:
        if row["class"]:
            read[row["file"]][row["class"]] = row["mark"]
    assert read == said
    # the weights stay in the file: the seven and the unreadable one stand for eight
    assert {float(row["weight"]) for row in rows} == {1.0}
    # each is a mark of the review that the page is of
    found_review, places, marks = read_marks(path)
    assert found_review.key == stage.folder.name
    for place, of_image in zip(places.tolist(), marks, strict=True):
        file = found_review.files[place]
        for c, label in enumerate(CLASSES):
            assert int(of_image[c]) == {"1": 1, "0": 0, "?": -1}[said[file].get(label, "0")]


def test_marks_are_made_by_click_on_a_phone_and_kept_over_a_reload(
    drawn: tuple[Tagged, Stage], page: Page, tmp_path: Path
) -> None:
    _, stage = drawn
    page.complaints.clear()
    page.keep_downloads(tmp_path)
    page.open(stage.file("index.html"), width=390)
    page.ask("localStorage.clear(); isSaved = true; location.reload()")
    time.sleep(0.5)
    page.open(stage.file("index.html"), width=390)
    assert page.ask("document.documentElement.scrollWidth") <= 390
    sizes = page.ask(
        "[...document.querySelectorAll('button')].map(e => e.getBoundingClientRect().height)"
    )
    assert min(sizes) >= 40
    first = current(page)
    while page.ask("document.querySelectorAll('#tags li:not(:has([aria-pressed=true]))').length"):
        page.click("#tags li:not(:has([aria-pressed=true])) [data-value='1']")
    page.click("#others button")
    added = page.ask("document.querySelector('#others [aria-pressed=true]').dataset.c")
    page.click("#next")
    assert page.ask("document.getElementById('left').textContent") == "1 done, 6 left"
    page.ask("isSaved = true")
    page.open(stage.file("index.html"), width=390)
    assert page.ask("document.getElementById('left').textContent") == "1 done, 6 left"
    page.click("#save")
    with saved(tmp_path).open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["file"] for row in rows} == {first}
    assert [row["class"] for row in rows if row["tagged"] == "0"] == [CLASSES[int(added)]]
    assert page.complaints == []


@pytest.mark.parametrize("dark", [False, True])
def test_nothing_hostile_becomes_an_element_and_nothing_is_loaded(
    drawn: tuple[Tagged, Stage], page: Page, dark: bool
) -> None:
    text = drawn[1].file("index.html").read_text(encoding="utf-8")
    policy = re.search(r'content="(default-src[^"]*)"', text)
    assert policy
    assert "default-src 'none'" in policy[1]
    assert "script-src 'sha256-" in policy[1]
    assert text.count("<script") == 2
    assert "http://" not in text
    assert "https://" not in text
    page.complaints.clear()
    page.open(drawn[1].file("index.html"), width=390, dark=dark)
    assert page.ask("document.querySelectorAll('b, i, [onerror]').length") == 0
    for _ in FILES:
        assert page.ask("document.querySelectorAll('main script, #work script').length") == 0
        page.ask("move(at + 1)")
    # a script that is not the page's own does not run
    page.ask(
        "const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
        "document.body.append(s)"
    )
    assert page.ask("window.ran") is None


def write_marks(path: Path, stage: Stage, rows: list[list[str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["review", "file", "class", "mark"])
        writer.writerows([stage.folder.name, *row] for row in rows)
    return path


def test_marks_of_all_images_give_exact_shares_and_a_list_of_labelled_images(
    drawn: tuple[Tagged, Stage], tmp_path: Path
) -> None:
    found, stage = drawn
    rows = []
    for file in FILES:
        said = truth_of(found, file)
        rows += [[file, label, mark] for label, mark in said.items()] or [[file, "", ""]]
    path = write_marks(tmp_path / "marks.csv", stage, rows)
    done = marked.marked.fn(path)
    right = sum(
        mark == "1"
        for file in FILES
        for c, mark in truth_of(found, file).items()
        if is_tag(found, file, c)
    )
    wrong = sum(mark == "0" for file in FILES for mark in truth_of(found, file).values())
    shown = sum(mark == "1" for file in FILES for mark in truth_of(found, file).values())
    for name, exact in (("precision", right / (right + wrong)), ("recall", right / shown)):
        bounds = [done.figures[f"review/{name}{end}"] for end in ("", "_low", "_high")]
        assert bounds == pytest.approx([100 * exact] * 3)
    moved = json.loads(done.file(THRESHOLDS).read_text())
    assert list(moved) == list(CLASSES)
    # the file itself is a list of labelled images
    listing = read_image_set("folder", path, found.folder)
    for entry in listing.entries:
        said = truth_of(found, entry.file)
        assert set(entry.classes) == {label for label, mark in said.items() if mark == "1"}
        assert set(entry.ignored) == {label for label, mark in said.items() if mark == "?"}
    assert [entry.file for entry in listing.entries] == FILES


def is_tag(found: Tagged, file: str, label: str) -> bool:
    return bool(found.given[found.files.index(file), CLASSES.index(label)])


def test_what_is_no_mark_says_why(drawn: tuple[Tagged, Stage], tmp_path: Path) -> None:
    stage = drawn[1]
    path = tmp_path / "marks.csv"
    for row, message in (
        (["plain.png", "a", "yes"], "line 2: expected a class and 1"),
        (["plain.png", "nothing", "1"], "line 2: expected a class and 1"),
        (["gone.png", "a", "1"], "line 2: 'gone.png' is no image of this review"),
    ):
        write_marks(path, stage, [row])
        with pytest.raises(InputError, match=re.escape(message)):
            read_marks(path)
    write_marks(path, stage, [["plain.png", "a", "1"], ["plain.png", "a", "0"]])
    with pytest.raises(InputError, match="line 3: a second mark of 'a'"):
        read_marks(path)
    write_marks(path, stage, [])
    with pytest.raises(InputError, match="no mark"):
        read_marks(path)
    path.write_text("review,file,class,mark\n../../etc,x,y,1\n")
    with pytest.raises(InputError, match="is no review's key"):
        read_marks(path)
    path.write_text("review,file,class,mark\nabc,x,y,1\n")
    with pytest.raises(InputError, match="no finished 'review' stage"):
        read_marks(path)
    write_marks(path, stage, [["plain.png", "a", "1"]])
    with pytest.raises(InputError, match="mark 2 or more"):
        marked.marked.fn(path)


def test_the_sample_of_a_review_is_read_as_it_was_drawn(drawn: tuple[Tagged, Stage]) -> None:
    found, stage = drawn
    read = read_review(stage.folder.name)
    rows = read.sample.rows
    assert sorted(read.files) == sorted(FILES)
    assert read.files == [FILES[row] for row in rows.tolist()]
    assert torch.equal(read.scores.float(), found.scores[rows])
    assert torch.equal(read.given, found.given[rows])
