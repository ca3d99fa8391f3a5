"""The report of a whole run on hostile data, in a real browser; and the parts it is made of."""

import csv
import io
import json
import re
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from flows.doors import check
from tasks import pages
from tasks.backbone.loading import load_backbone
from tasks.catalogue import method_class
from tasks.pages import heatmaps, pictures, words
from tasks.pages.report import report as write_report
from tasks.profile import load_profile
from tasks.results.evaluate import ap_rows
from tests.browser import Page, browser
from tests.tasks.pages.look import faults_of
from tests.tasks.road import tagged, whole_run

CONFIG = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
HOSTILE_FILE = '"><img src=x onerror=alert(1)>.png'
# no blank after the name: cleaning lets it through, and a browser would make an element of it
HOSTILE_TEXT = "<svg/onload=alert('caption')> & so on"
HOSTILE_CLASS = "<b>bird</b> $x^2$"
FILES = [HOSTILE_FILE, *(f"{number}.png" for number in range(7)), "broken.png", "gone.png"]


def write_data(root: Path, most: int = 2) -> dict[str, list[str]]:
    """Captions, a vocabulary, images and a profile; two of ten images cannot be read.

    Returns the classes that each image shows, `most` at most.
    """
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    shown = [["dog"], ["cat"], ["dog", "cat"], [HOSTILE_CLASS], ["cat", HOSTILE_CLASS]]
    shown = [["dog", "cat", HOSTILE_CLASS], [], *shown] if most == 3 else shown
    shown = [classes[:most] for classes in shown] if most else [["dog"], *[[]] * 9]
    for number, file in enumerate(FILES[:-1]):
        image = Image.new("RGB", (90, 70), tuple(rng.integers(0, 255, 3).tolist()))
        ImageDraw.Draw(image).ellipse((10, 10, 30 + 5 * number, 50), fill="white")
        image.save(root / "images" / file)
    (root / "images" / "broken.png").write_bytes(b"no image")
    with (root / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "class"])
        for number, name in enumerate(FILES):
            rows.writerows([name, label] for label in shown[number % len(shown)])
    captions = ["A dog with a cat", "Two dogs run.", "A bird on a cat's back", "Nothing"] * 3
    with (root / "captions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text"])
        rows.writerows([f"{text} {HOSTILE_TEXT} {number}"] for number, text in enumerate(captions))
    of_files = {name: shown[number % len(shown)] for number, name in enumerate(FILES)}
    vocabulary = io.StringIO()
    csv.writer(vocabulary).writerows(
        [["class", "synonym"], ["dog", "dog"], ["cat", "cat"], [HOSTILE_CLASS, "bird"]]
    )
    (root / "vocabulary.csv").write_text(vocabulary.getvalue())
    (root / "clip.json").write_text(json.dumps(CONFIG))
    (root / "hostile.toml").write_text(
        f"""
description = "<i>hostile</i>"
data = {json.dumps(str(root))}
vocabulary = "vocabulary.csv"
backbone = {{model = {json.dumps(str(root / "clip.json"))}}}
captions = {{held_out = 0.3}}
methods.tai-dpt = {{contexts = 2, epochs = 2, batch = 64}}
sources = [{{source = "mine", form = "table", path = "captions.csv"}}]
images = [{{name = "mine", form = "folder", annotations = "labels.csv", folder = "images"}}]
"""
    )
    return of_files


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("hostile")
    write_data(root / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAI_HOME", str(root / "home"))
        profile = load_profile(str(root / "data" / "hostile.toml"))
        vocabulary = check(profile)
        outcome = tagged(profile, whole_run(profile))
        assert outcome.rate is not None
        stage = write_report.fn(profile, vocabulary, outcome, "python -m <flows> & co")
        yield stage.file("index.html")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


class Elements(HTMLParser):
    """Tags and attributes, as they stand in the file."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_is_one_file_without_scripts_and_with_alt_texts(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert len(text.encode()) < 5_000_000
    elements = Elements(text).found
    assert not [tag for tag, _ in elements if tag in ("script", "iframe", "object", "b", "i")]
    images = [attributes for tag, attributes in elements if tag == "img"]
    charts = [attributes for tag, attributes in elements if tag == "svg"]
    assert len(charts) == 4
    assert len(images) >= 8
    assert all(image["alt"] for image in images)
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in charts)
    for _, attributes in elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("data:", "#"))


def test_the_page_says_what_was_missing_and_where_everything_went(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert "8 of 10 images" in text
    assert "gone.png: no such file" in text
    assert "broken.png: not a whole image" in text
    # 12 captions read, of which 3 name no class
    assert "3 name no class; 15 labels in the others" in text


RUNS = [
    run
    for size in (1, 2, 3, 4)
    for run in combinations(["zero-shot", "tai", "tai-dpt", "linear-probe"], size)
]
LOSSES = ["ranking", "bce", "asl"]


@pytest.mark.parametrize("number", range(len(RUNS)), ids=lambda number: "+".join(RUNS[number]))
def test_every_sentence_is_true_of_whatever_ran(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each subset of methods, with losses and images of 0 to 3 labels in turn."""
    run, loss = RUNS[number], LOSSES[number % 3]
    shown = write_data(tmp_path / "data", most=number % 4)
    monkeypatch.setenv("TAI_HOME", str(tmp_path / "home"))
    own = str(tmp_path / "data" / "hostile.toml")
    labelled = load_profile(own).images[0].model_dump() | {"name": "taught"}
    changes = {"run": list(run), "labelled": labelled, "methods.tai-dpt.loss": loss}
    profile = load_profile(own, changes)
    vocabulary = check(profile)
    outcome = whole_run(profile)
    text = write_report.fn(profile, vocabulary, outcome, "again").file("index.html").read_text()
    text, _, _ = text.partition("All settings")
    told = unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text)))
    method = profile.headline_method
    by_captions = {"tai", "tai-dpt"} & set(run)
    # the title and the tiles
    source = "learned from captions alone" if by_captions else "with nothing learned"
    is_taught = not by_captions and method == "linear-probe"
    source = "learned from labelled images" if is_taught else source
    assert f"Recognising 3 classes, {source}" in told
    held_out = outcome.fitted[method].counts.get("captions/held_out", 0)
    # nine captions name a class; the sentences made of synonyms are nobody's captions
    told_captions = re.findall(r"(\d+) captions that (\S+) learned from", told)
    assert told_captions == ([(str(9 - held_out), method)] if by_captions else [])
    assert (held_out > 0) == bool(by_captions)
    # the last two files are none; an image that shows nothing is not in the list
    labels = sum(bool(shown[file]) for file in FILES[:-2]) if is_taught else 0
    assert f"{labels} labelled images that {method} learned from" in told
    for heading in ("A caption such as it learned from", "Captions such as it learned from"):
        assert (heading in told) == bool(by_captions)
    held_back = f"{held_out} of the chosen ones are held back" if by_captions else "held back"
    assert (held_back in told) == bool(by_captions)
    # every method says what it is, in its own words
    for name in run:
        assert method_class(name).summary in told
    # bold is told where two methods that learned from the same stand in one table
    pairs = {"tai", "tai-dpt"} <= set(run)
    assert ("Bold: the highest of its column" in told) == pairs == ('number best"' in text)
    # the losses that ran, and no other
    for each in LOSSES:
        assert (f": {each}" in told) == (bool(by_captions) and each == loss)
    assert ("The loss that training lowers" in told) == bool(by_captions)
    # an image, its tags and what it shows
    if any(shown.values()):
        (file, classes) = re.findall(r"<figcaption>([^<]*); it shows ([^<]*)</figcaption>", text)[0]
        assert set(unescape(classes).split(", ")) == set(shown[unescape(file)])
    # figures of the tables, and whether whole images are held against places
    figures = {name: of["mine"].figures for name, of in outcome.evaluations.items()}
    assert ("local, its places" in told) == any("mAP/local" in of for of in figures.values())
    unfair = {"tai", "zero-shot"} <= set(run)
    unfair &= figures.get("tai", {}).get("mAP/merged", 0) < figures.get("zero-shot", {}).get(
        "mAP/merged", 0
    )
    assert ("tai looks at images as a whole alone" in told) == unfair
    for name, stages in outcome.evaluations.items():
        for row in ap_rows(stages["mine"]):
            if row["AP/merged"]:
                assert (
                    f'<td data-label="{name}" class="number">{float(row["AP/merged"]):.1f}' in text
                )


def test_it_looks_right(report: Path, page: Page) -> None:
    assert faults_of(page, report) == []


@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_it_without_complaint(
    report: Path, page: Page, width: int, dark: bool
) -> None:
    page.complaints.clear()
    page.open(report, width=width, dark=dark)
    assert page.complaints == []
    # nothing sticks out sideways, and nothing hostile became an element
    assert page.ask("document.documentElement.scrollWidth") <= width
    assert page.ask("document.querySelectorAll('script, [onerror], [onload], b, i').length") == 0
    assert page.ask("[...document.images].every(image => image.naturalWidth > 0)")
    shown = page.ask("document.body.innerText")
    for hostile in (HOSTILE_TEXT, HOSTILE_CLASS, HOSTILE_FILE):
        assert hostile in shown
    picture = Image.open(io.BytesIO(page.screenshot())).convert("L")
    corner = picture.getpixel((2, 2))
    assert isinstance(corner, int)
    assert corner < 60 if dark else corner > 200
    # ink stands out on the paper
    low, high = picture.getextrema()
    assert isinstance(low, int)
    assert isinstance(high, int)
    assert high - low > 150


def test_a_chart_has_the_same_bytes_and_escapes_names() -> None:
    def draw() -> str:
        return pictures.ap_by_class(["<x>", "$y$"], [10, 20], [30, 15], ("a", "b"))

    chart = draw()
    assert chart == draw()
    assert "&lt;x&gt;" in chart
    assert "$y$" in chart
    assert "currentColor" in chart
    assert not set(pictures.COLOURS) & set(chart.split('"'))
    described = pages.picture(chart, 'a "quoted" <b>')
    assert 'aria-label="a &quot;quoted&quot; &lt;b&gt;"' in described


def test_a_heat_map_is_bright_where_the_prompt_answers() -> None:
    dense = torch.zeros(9, 4)
    dense[:, 0] = 1.0
    dense[5] = torch.tensor([0.0, 1.0, 0.0, 0.0])  # second row, third column
    prompts = torch.tensor([[0.0, 2.0, 0.0, 0.0], [0.5, 0.0, 0.0, 3**0.5 / 2]])
    bright, dim = heatmaps.relative_cosines(dense, prompts)
    expected = np.zeros((3, 3))
    expected[1, 2] = 1
    assert bright == pytest.approx(expected)
    # the other class's strongest answer is half as strong, and one scale shows it
    assert dim == pytest.approx((1 - expected) / 2)


def test_pictures_of_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"nothing")
    assert heatmaps.thumbnail(tmp_path / "x.png") is None
    assert heatmaps.heat_maps(tmp_path / "gone.png", torch.ones(4, 2), torch.ones(1, 2)) is None


def test_spans_cut_a_caption_and_lose_nothing() -> None:
    spans = [{"class": "cat", "start": 12, "end": 15}, {"class": "dog", "start": 2, "end": 7}]
    pieces = words.spans_of("A puppy, a  cat!", spans)
    assert "".join(piece.text for piece in pieces) == "A puppy, a  cat!"
    assert [(piece.text, piece.label) for piece in pieces if piece.label] == [
        ("puppy", "dog"),
        ("cat", "cat"),
    ]


def test_answering_words_share_the_softmax_over_tokens(tmp_path: Path) -> None:
    (tmp_path / "clip.json").write_text(json.dumps(CONFIG))
    config = str(tmp_path / "clip.json")
    backbone = load_backbone(config, "", seed=0, resolution=None, device="cpu").backbone
    prompt = torch.randn(32, generator=torch.Generator().manual_seed(0))
    text = "Two snowboarders, naïve & fast"
    pieces = words.answering_words(text, prompt, backbone, 10.0)
    assert [piece.text for piece in pieces] == [
        "start", "two", "snowboarders", ",", "naïve", "&", "fast", "end",
    ]  # fmt: skip
    tokens = backbone.tokenize([text])
    hidden = backbone.project(backbone.encode_text(tokens))[0, : int(backbone.lengths(tokens)[0])]
    cosines = torch.nn.functional.cosine_similarity(hidden, prompt[None])
    weights = (10 * cosines).exp() / (10 * cosines).exp().sum()
    assert sum(piece.weight for piece in pieces) == pytest.approx(1, abs=1e-5)
    assert pieces[0].weight == pytest.approx(float(weights[0]), rel=1e-4)
    assert pieces[-1].weight == pytest.approx(float(weights[-1]), rel=1e-4)
    assert pieces[1].weight == pytest.approx(float(weights[1]), rel=1e-4)
