"""Tagging a folder: the table, the page while it runs and after, broken files, a killed run."""

import base64
import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from mlflow.models.utils import _enforce_schema
from mlflow.utils.proto_json_utils import dataframe_from_parsed_json
from PIL import Image
from safetensors.torch import save_file

from models.decisions import FEWEST_IMAGES
from tasks.backbone.devices import native_precision
from tasks.errors import InputError
from tasks.pages.gallery import Gallery, link
from tasks.serving import scored
from tasks.serving.predict import tag_folder
from tasks.serving.registry import signature
from tasks.serving.scored import tagged_of_folder
from tasks.serving.served import Served, allowed
from tasks.serving.tagger import RATE, load_tagger

CONFIG = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
CLASSES = ["dog", "<i>cat</i>", "bird"]
ABOUT: dict[str, Any] = dict.fromkeys(
    ("address", "alias", "run", "method", "summary", "backbone", "weights"), "x"
)
ABOUT |= {"random": False, "review": "python -m flows.review x"}


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prompts")
    (folder / "clip.json").write_text(json.dumps(CONFIG))
    backbone = {"model": "elsewhere/clip.json", "pretrained": "", "seed": 0, "resolution": None}
    (folder / "card.json").write_text(
        json.dumps({"method": "tai-dpt", "settings": {}, "backbone": backbone, "classes": CLASSES})
    )
    made = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0))
    save_file(
        {"global": made[0].contiguous(), "local": made[1].contiguous()},
        folder / "state.safetensors",
    )
    return folder


def write_pictures(folder: Path, count: int) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = rng.integers(0, 255, (50, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "my <pictures>"
    (folder / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.jpg", "sub/<script>.png", "sub/d.png"):
        Image.fromarray(rng.integers(0, 255, (50, 70, 3), dtype=np.uint8)).save(folder / name)
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def test_a_folder_is_tagged_and_shown(
    tmp_path: Path, images: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAI_HOME", str(tmp_path / "home"))
    (images / "dangling.png").symlink_to(images / "nowhere.png")
    (images / "folder.jpg").mkdir()
    # an odd file in the model's folder is not looked at
    own = tmp_path / "own"
    shutil.copytree(prompts, own)
    (own / ".DS_Store").symlink_to(own / "nowhere")
    (own / "card.json~").mkdir()
    page = tag_folder.fn(str(images), str(own), 2, str(tmp_path / "out")).page
    rows = pq.read_table(tmp_path / "out" / "tags.parquet").to_pylist()
    assert [row["file"] for row in rows] == ["a.png", "b.jpg", "sub/<script>.png", "sub/d.png"]
    tagger = load_tagger(prompts, "cpu")
    for row in rows:
        (image,) = tagger.read([images / row["file"]])
        assert isinstance(image, torch.Tensor)
        scores = tagger.scores([image])[0]
        best = scores.argsort(descending=True)[:2].tolist()
        assert [tag["label"] for tag in row["tags"]] == [CLASSES[index] for index in best]
        expected = [float(scores[index]) for index in best]
        # in bf16 the last bit of a feature depends on the images beside it
        rounding = 1e-5 if native_precision("cpu") == "fp32" else 1e-3
        assert [tag["score"] for tag in row["tags"]] == pytest.approx(expected, abs=rounding)
    with (tmp_path / "out" / "tags.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["file"], row["rank"]) for row in table[:3]] == [
        ("a.png", "1"), ("a.png", "2"), ("b.jpg", "1"),
    ]  # fmt: skip
    rejects = (tmp_path / "out" / "rejects.csv").read_text()
    assert rejects.startswith("file,reason\nbroken.png,not a whole image")
    text = page.read_text(encoding="utf-8")
    assert 'http-equiv="refresh"' not in text
    assert "dangling.png,a link to nothing" in rejects
    assert "folder.jpg,a folder, not a file" in rejects.replace('"', "")
    assert "7 images" in text
    for hostile in ("<script>", "<i>", "<pictures>"):
        assert hostile not in text
    assert text.count("data:image/jpeg") == 4


def test_an_image_without_a_tag_has_a_guess(
    tmp_path: Path, images: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAI_HOME", str(tmp_path / "home"))
    card = json.loads((prompts / "card.json").read_text())
    strict = tmp_path / "strict"
    shutil.copytree(prompts, strict)
    # no cosine is as high; the last class is the nearest, whatever the scores
    (strict / "card.json").write_text(json.dumps(card | {"thresholds": [90, 90, 9]}))
    page = tag_folder.fn(str(images), str(strict), None, str(tmp_path / "out")).page
    rows = pq.read_table(tmp_path / "out" / "tags.parquet").to_pylist()
    assert [row["tags"] for row in rows] == [[]] * 4
    assert [row["nearest"]["label"] for row in rows] == ["bird"] * 4
    text = page.read_text(encoding="utf-8")
    assert text.count("perhaps bird") == 4
    assert "On 4 no class is above its threshold" in text


def test_the_page_reloads_itself_until_all_is_decided(tmp_path: Path, images: Path) -> None:
    gallery = Gallery(tmp_path / "index.html", images, 2, ABOUT)
    row = {"file": "a.png", "tags": [{"label": "dog", "score": 0.5}], "reason": None}
    gallery.add([row])
    half = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "1 of 2 images" in half
    assert 'http-equiv="refresh"' in half
    gallery.anew("All told.", {"x.txt": "no picture"}).add(
        [row, {"file": "b.jpg", "tags": None, "reason": "no such file"}]
    )
    whole = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert 'http-equiv="refresh"' not in whole
    assert "b.jpg: no such file" in whole
    assert "x.txt: no picture" in whole
    assert "All told." in whole


@pytest.mark.parametrize("name", ["50%.png", "a?b#c.png", "x y'\"z.png", "a:b.png", "ü/&.png"])
def test_a_link_leads_to_its_picture(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out" / "tags"
    base = (out / "index.html").as_uri()
    # elsewhere, and beside the page, where a colon would be taken for a scheme
    for picture in (tmp_path / "in" / name, out / name):
        parts = urlsplit(urljoin(base, link(picture, out)))
        assert (parts.query, parts.fragment) == ("", "")
        assert unquote(parts.path) == str(picture)


def test_thresholds_are_those_of_the_folder_at_hand(
    tmp_path: Path, images: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAI_HOME", str(tmp_path / "home"))
    own = tmp_path / "own"
    shutil.copytree(prompts, own)
    card = json.loads((prompts / "card.json").read_text())
    (own / "card.json").write_text(json.dumps(card | {"thresholds": [90, -90, 90], RATE: 0.2}))
    few = tag_folder.fn(str(images), str(own), None, str(tmp_path / "few"))
    assert "4 pictures are too few" in few.told[0]
    rows = pq.read_table(tmp_path / "few" / "tags.parquet").to_pylist()
    assert [[tag["label"] for tag in row["tags"]] for row in rows] == [["<i>cat</i>"]] * 4
    write_pictures(tmp_path / "many", FEWEST_IMAGES)
    many = tag_folder.fn(str(tmp_path / "many"), str(own), None, str(tmp_path / "out"))
    assert f"for these {FEWEST_IMAGES} pictures" in many.told[0]
    assert many.told[0].split(". ", 1)[1] in many.page.read_text(encoding="utf-8")
    # as its review sees it, whose scores are the very same stage
    reviewed = tagged_of_folder.fn(str(tmp_path / "many"), str(own))
    assert len(list((tmp_path / "home" / "folder-scores").glob("[!.]*"))) == 2
    rows = pq.read_table(tmp_path / "out" / "tags.parquet").to_pylist()
    given = [[CLASSES.index(tag["label"]) for tag in row["tags"]] for row in rows]
    assert [sorted(each) for each in given] == [
        of.nonzero().flatten().tolist() for of in reviewed.given
    ]


def test_a_stopped_run_goes_on_to_the_same_scores(
    tmp_path: Path, images: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scored, "IMAGES_PER_PART", 2)
    tagger = load_tagger(prompts, "cpu")
    files = [path.relative_to(images).as_posix() for path in sorted(images.rglob("*.*g"))]
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    scored.write_scores(images, files, tagger, tmp_path / "whole", lambda _: None)
    calls = 0
    original = scored.scored_rows

    def stops(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(scored, "scored_rows", stops)
    with pytest.raises(KeyboardInterrupt):
        scored.write_scores(images, files, tagger, tmp_path / "stopped", lambda _: None)
    seen: list[str] = []
    scored.write_scores(
        images,
        files,
        tagger,
        tmp_path / "stopped",
        lambda rows: seen.extend(r["file"] for r in rows),
    )
    # the first run of two images was not looked at again, but shown
    assert calls == 4
    assert seen == files
    whole, stopped = (tmp_path / name / scored.SCORES for name in ("whole", "stopped"))
    assert stopped.read_bytes() == whole.read_bytes()


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(file, "PNG")
    return file.getvalue()


def test_a_served_row_that_is_bad_costs_the_others_nothing(
    tmp_path: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = Served()
    served.tagger = load_tagger(prompts, "cpu")
    inputs, image = signature().inputs, base64.b64encode(png()).decode()
    body = {"columns": ["image", "path"], "data": [[image, None], ["?!", None], [None, "a.png"]]}
    # as the server reads it
    table = dataframe_from_parsed_json(body, "split", inputs)
    answer = served.predict(None, _enforce_schema(table, inputs), {"top": 2})
    assert [len(tags) for tags in answer["tags"]] == [2, 0, 0]
    assert answer["reason"][0] is None
    assert "Base64" in answer["reason"][1]
    assert "opens no paths" in answer["reason"][2]
    assert "TAI_SERVED_IMAGES" in answer["reason"][2]
    rows = pd.DataFrame({"image": [png(), b"none", 3, None, float("nan")]})
    answer = served.predict(None, rows)
    assert [reason is None for reason in answer["reason"]] == [True] + [False] * 4
    assert list(served.predict(None, pd.DataFrame({"other": [1, 2]}))["tags"]) == [[], []]


def test_a_served_model_opens_what_its_owner_allows_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "allowed"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(png())
    (tmp_path / "allowed2").mkdir()
    (root / "in.png").write_bytes(png())
    (root / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "up").symlink_to(tmp_path)
    monkeypatch.setenv("TAI_SERVED_IMAGES", str(root))
    assert allowed("in.png") == root / "in.png"
    assert allowed("sub/none.png") == root / "sub" / "none.png"
    for path in (
        "../secret.png", "sub/../../secret.png", str(root / "in.png"), str(tmp_path / "secret.png"),
        "out.png", "up/secret.png", "../allowed2/x.png", "a\0b", "//etc/passwd",
    ):  # fmt: skip
        assert "expected a path below" in str(allowed(path))


def test_prompts_that_do_not_fit_are_refused(tmp_path: Path, prompts: Path) -> None:
    with pytest.raises(InputError, match=r"expected state\.safetensors and card\.json"):
        load_tagger(tmp_path, "cpu")
    (tmp_path / "state.safetensors").write_bytes((prompts / "state.safetensors").read_bytes())
    card = json.loads((prompts / "card.json").read_text())
    (tmp_path / "clip.json").write_text(json.dumps(CONFIG))
    (tmp_path / "card.json").write_text(json.dumps(card | {"classes": ["dog"]}))
    with pytest.raises(InputError, match=r"tensor 'global' of shape \(3, 32\); expected \(1, 32\)"):
        load_tagger(tmp_path, "cpu")
    (tmp_path / "card.json").write_text("{}")
    with pytest.raises(InputError, match="not a fitted method's card"):
        load_tagger(tmp_path, "cpu")
