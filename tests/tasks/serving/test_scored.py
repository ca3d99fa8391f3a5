"""Scores of a folder for its review: those of the tagger itself, and decisions as they are told."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from models.decisions import FEWEST_IMAGES, image_thresholds
from tasks.backbone.devices import native_precision
from tasks.errors import InputError
from tasks.methods.state import CARD
from tasks.serving.scored import tagged_of_folder
from tasks.serving.tagger import RATE, load_tagger

from .test_predict import prompts, write_pictures  # noqa: F401


def test_a_folder_is_scored_as_the_tagger_scores(
    tmp_path: Path,
    prompts: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TAI_HOME", str(tmp_path / "home"))
    write_pictures(tmp_path / "few", 5)
    (tmp_path / "few" / "broken.png").write_bytes(b"none")
    found = tagged_of_folder.fn(str(tmp_path / "few"), str(prompts))
    assert found.files == [f"{number:03d}.png" for number in range(5)]
    tagger = load_tagger(prompts, "cpu")
    images = tagger.read([found.folder / file for file in found.files])
    scores = tagger.scores([image for image in images if isinstance(image, torch.Tensor)])
    rounding = 1e-5 if native_precision("cpu") == "fp32" else 1e-3
    torch.testing.assert_close(found.scores, scores.float(), atol=rounding, rtol=0)
    # no thresholds: the three best
    assert found.given.sum(dim=1).tolist() == [3] * 5
    # thresholds of the model's own images, where these are few; by the rate, where there are enough
    own = tmp_path / "own"
    shutil.copytree(prompts, own)
    card = json.loads((own / CARD).read_text())
    (own / CARD).write_text(json.dumps(card | {"thresholds": [0.9, -0.9, 0.9], RATE: 0.2}))
    found = tagged_of_folder.fn(str(tmp_path / "few"), str(own))
    assert found.given.tolist() == [[False, True, False]] * 5
    write_pictures(tmp_path / "many", FEWEST_IMAGES)
    found = tagged_of_folder.fn(str(tmp_path / "many"), str(own))
    expected = found.scores.double() > image_thresholds(found.scores, 0.2)
    assert torch.equal(found.given, expected)


def test_a_folder_of_nothing_readable_says_so(
    tmp_path: Path,
    prompts: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TAI_HOME", str(tmp_path / "home"))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(b"none")
    with pytest.raises(InputError, match="no picture can be read"):
        tagged_of_folder.fn(str(tmp_path / "bad"), str(prompts))
