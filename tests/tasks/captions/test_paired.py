"""Pairs of pictures and captions: their moments, and a method that is fitted by them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from flows.doors import check
from tasks.backbone.loading import load
from tasks.captions.paired import encode_pairs, read_pairs
from tasks.errors import InputError
from tasks.images.encode import encode_pictures
from tasks.images.features import open_features
from tasks.images.parts import pictures_of
from tasks.profile import Profile, load_profile
from tests.tasks.road import whole_run

IMAGES = Path("tests/small/images").absolute()
FILES = sorted(path.name for path in IMAGES.iterdir())[:5]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAI_HOME", str(tmp_path / "home"))


def profile(captions: Path, **settings: Any) -> Profile:
    paired = {"captions": str(captions), "folder": str(IMAGES)}
    changes = {"paired": paired, "run": ["close"], "methods.close.adapter": "linear"}
    return load_profile("tests/small/small.toml", changes | settings)


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    """Two captions of each picture but of one that is not there."""
    path = tmp_path / "captions.json"
    images = [{"id": number, "file_name": file} for number, file in enumerate([*FILES, "gone.png"])]
    said = [
        {"id": 2 * each["id"] + turn, "image_id": each["id"], "caption": f"{'a ' * turn}{each}"}
        for each in images
        for turn in (1, 2)
    ]
    path.write_text(json.dumps({"images": images, "annotations": said}))
    return path


def test_moments_are_those_of_all_pairs(captions: Path) -> None:
    chosen = profile(captions)
    stage = encode_pairs.fn(chosen)
    assert stage.counts == {"pairs": 10, "images": 5}
    found = read_pairs(stage)
    backbone = load(chosen).backbone
    features = open_features(encode_pictures(chosen, pictures_of(IMAGES, FILES))).pooled()
    said = json.loads(captions.read_text())["annotations"][:10]
    texts = torch.cat(
        [backbone.encode_sentences(backbone.tokenize([one["caption"]])) for one in said]
    )
    texts = F.normalize(texts.detach().double(), dim=-1)
    images = F.normalize(features.double(), dim=-1).repeat_interleave(2, dim=0)
    both = torch.cat([texts, images], dim=1)
    covariance = both.T.cov(correction=0)[: backbone.dim]
    close = {"rtol": 1e-2, "atol": 1e-3}
    torch.testing.assert_close(found.texts, texts.mean(dim=0), **close)
    torch.testing.assert_close(found.images, images.mean(dim=0), **close)
    torch.testing.assert_close(found.within, covariance[:, : backbone.dim], **close)
    torch.testing.assert_close(found.across, covariance[:, backbone.dim :], **close)
    assert not encode_pairs.fn(chosen).fresh


def test_a_run_with_an_adapter_depends_on_its_pairs(captions: Path) -> None:
    plain = whole_run(profile(captions, **{"methods.close.adapter": "none"})).fitted["close"]
    mapped = whole_run(profile(captions)).fitted["close"]
    assert mapped.digest != plain.digest
    captions.write_text(captions.read_text().replace("a a ", "the "))
    assert whole_run(profile(captions)).fitted["close"].key != mapped.key


def test_what_is_wrong_with_pairs_is_said_before_work_starts(captions: Path) -> None:
    with pytest.raises(InputError, match=r"expected \[paired\] with `captions` and `folder`"):
        profile(captions, paired=None)
    captions.write_text('{"images": []}')
    with pytest.raises(InputError, match="no list 'annotations'"):
        check(profile(captions))
    with pytest.raises(InputError, match=r"none\.json: cannot be read"):
        check(profile(captions.with_name("none.json")))
