"""Random crops of labelled images: what part they show, and that a cache's keys are their mean."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

from tasks.images.crops import CropEncoder, crop
from tasks.images.encode import FeatureEncoder
from tasks.images.image_sets import ENTRIES
from tasks.methods.state import read_state
from tasks.profile import load_profile
from tests.tasks.road import whole_run


def places(width: int, height: int) -> Image.Image:
    """A picture whose colours say where each pixel is, red across and green down."""
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    blue = np.zeros_like(across)
    return Image.fromarray(np.stack([across, down, blue], axis=-1).astype(np.uint8))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 250), st.integers(1, 250), st.integers(0, 9), st.integers(0, 3))
def test_a_crop_is_a_part_of_half_the_area_or_more(
    width: int, height: int, view: int, seed: int
) -> None:
    whole = places(width, height)
    found = crop(whole, view, seed)
    assert found.size[0] == found.size[1]
    assert crop(whole, view, seed).tobytes() == found.tobytes()
    pixels = np.asarray(found).astype(int)
    shown = [pixels[..., axis].max() - pixels[..., axis].min() + 1 for axis in (0, 1)]
    # what resizing takes from the edges
    wide, high = (part + 3 for part in shown)
    long, short = max(width, height), min(width, height)
    least = min(0.5, 4 / 3 * short / long)
    assert wide * high >= least * width * height - 1
    assert shown[0] <= width
    assert shown[1] <= height


def test_crops_differ_by_view_seed_and_picture() -> None:
    one, other = places(90, 60), places(60, 90)
    made = [crop(one, view, seed).tobytes() for view in range(8) for seed in range(2)]
    assert len(set(made)) == len(made)
    turned = [np.asarray(crop(one, view, 0))[0, :, 0].astype(int) for view in range(12)]
    assert 2 <= sum(row[-1] > row[0] for row in turned) <= 10
    assert crop(other, 0, 0).size != one.size


def test_a_caches_keys_are_the_mean_of_its_views(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAI_HOME", str(tmp_path / "home"))
    small = load_profile("tests/small/small.toml").images[0].model_dump()
    changes: dict[str, Any] = {"run": ["tip-adapter"], "labelled": small | {"name": "labelled"}}
    changes |= {"labelled.shots": 1, "methods.tip-adapter.views": 3, "precision": "fp32"}
    profile = load_profile("tests/small/small.toml", changes)
    outcome = whole_run(profile)
    fitted = outcome.fitted["tip-adapter"]
    keys = read_state(fitted.folder)["keys"]
    (drawn,) = (tmp_path / "home" / "draw").glob("*/" + ENTRIES)
    files = sorted(pq.read_table(drawn)["file"].to_pylist())
    preprocess, encode = FeatureEncoder(profile).load()
    expected = []
    for file in files:
        with Image.open(Path("tests/small/images") / file) as opened:
            image = opened.convert("RGB")
        looks = [encode(preprocess(crop(image, view, 0))[None])["pooled"] for view in range(3)]
        expected.append(F.normalize(torch.cat(looks).float(), dim=-1).mean(dim=0))
    expected_keys = F.normalize(torch.stack(expected), dim=-1)
    gaps = (keys[:, None] - expected_keys[None]).norm(dim=-1).min(dim=0).values
    assert float(gaps.max()) < 5e-3
    # the views are stored: nothing is encoded again, in whatever order
    monkeypatch.setattr(CropEncoder, "load", lambda self: pytest.fail("encoded again"))
    assert not whole_run(profile).fitted["tip-adapter"].fresh
    plain = whole_run(load_profile(profile, {"methods.tip-adapter.views": 0}))
    assert plain.fitted["tip-adapter"].digest != fitted.digest
