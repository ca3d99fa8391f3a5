"""Tagging a folder: the table, the page while it runs and after, broken files, a killed run."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tasks.backbone.devices import native_precision
from tasks.errors import InputError
from tasks.serving import predict
from tasks.serving.predict import tag_folder
from tasks.serving.tagger import load_tagger

CONFIG = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
CLASSES = ["dog", "<i>cat</i>", "bird"]


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
    page = tag_folder.fn(str(images), str(prompts), 2, str(tmp_path / "out"))
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
    page = tag_folder.fn(str(images), str(strict), None, str(tmp_path / "out"))
    rows = pq.read_table(tmp_path / "out" / "tags.parquet").to_pylist()
    assert [row["tags"] for row in rows] == [[]] * 4
    assert [row["nearest"]["label"] for row in rows] == ["bird"] * 4
    text = page.read_text(encoding="utf-8")
    assert text.count("perhaps bird") == 4
    assert "On 4 no class is above its threshold" in text


def test_the_page_reloads_itself_until_all_is_done(tmp_path: Path, images: Path) -> None:
    gallery = predict.Gallery(tmp_path / "index.html", images, total=2)
    row = {"file": "a.png", "tags": [{"label": "dog", "score": 0.5}], "reason": None}
    gallery.add([row])
    half = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "1 of 2 images" in half
    assert 'http-equiv="refresh"' in half
    gallery.add([{"file": "b.jpg", "tags": None, "reason": "no such file"}])
    whole = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert 'http-equiv="refresh"' not in whole
    assert "b.jpg: no such file" in whole


def test_a_stopped_run_goes_on_to_the_same_tags(
    tmp_path: Path, images: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "IMAGES_PER_PART", 2)
    tagger = load_tagger(prompts, "cpu")
    files = [path.relative_to(images).as_posix() for path in sorted(images.rglob("*.*g"))]
    live = tmp_path / "live.html"
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    predict.write_tags(images, files, tagger, 3, tmp_path / "whole", live)
    calls = 0
    original = predict._tagged

    def stops(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(predict, "_tagged", stops)
    with pytest.raises(KeyboardInterrupt):
        predict.write_tags(images, files, tagger, 3, tmp_path / "stopped", live)
    predict.write_tags(images, files, tagger, 3, tmp_path / "stopped", live)
    # the first run of two images was not looked at again
    assert calls == 4
    for name in predict.RESULTS:
        assert (tmp_path / "stopped" / name).read_bytes() == (
            tmp_path / "whole" / name
        ).read_bytes()


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
