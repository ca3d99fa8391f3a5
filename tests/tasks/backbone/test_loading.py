"""Which of open_clip's models are refused, before work starts or when they are built."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from tasks.backbone.loading import (
    check_backbone,
    identity_of,
    load,
    load_backbone,
    native_precision,
    precision_of,
)
from tasks.errors import InputError
from tasks.profile import load_profile

SMALL = Path(__file__).parents[2] / "small" / "tiny-clip.json"


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("coca_ViT-B-32", "class token"),
        ("ViT-B-16-SigLIP", "no causal mask"),
        ("roberta-ViT-B-32", "transformers library"),
        ("RN5O-quickgelu", "did you mean RN50-quickgelu"),
    ],
)
def test_a_model_that_prompts_cannot_be_tuned_on_is_one_sentence(model: str, reason: str) -> None:
    with pytest.raises(InputError, match=rf"field 'backbone\.model'.*{reason}"):
        check_backbone(model, "")


@pytest.mark.skipif(find_spec("transformers") is not None, reason="transformers is installed")
def test_a_tokenizer_that_is_not_installed_says_what_to_install() -> None:
    with pytest.raises(InputError, match="pip install transformers"):
        check_backbone("ViT-L-14-worldwide", "")


def test_a_tower_that_its_config_does_not_tell_is_refused_when_it_is_built(tmp_path: Path) -> None:
    config = json.loads(SMALL.read_text())
    config["vision_cfg"] = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    config["vision_cfg"]["pool_type"] = "avg"
    (tmp_path / "avg-clip.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"field 'backbone\.model': avg-clip: image tower"):
        load_backbone(str(tmp_path / "avg-clip.json"), "", seed=0, resolution=None, device="cpu")


def test_precision_is_the_devices_own_unless_one_is_asked_for() -> None:
    asked = {
        name: load_profile("demo", {"device": "cpu", "precision": name})
        for name in ("auto", "fp32", "bf16")
    }
    assert precision_of(asked["auto"]) == native_precision("cpu")
    assert precision_of(asked["fp32"]) == "fp32"
    assert precision_of(asked["bf16"]) == "bf16"
    # features of one are never taken for the other's
    assert identity_of(asked["fp32"]) != identity_of(asked["bf16"])
    assert identity_of(asked["auto"]) in (identity_of(asked["fp32"]), identity_of(asked["bf16"]))
    assert load(asked["bf16"]).backbone.is_bf16
    assert not load(asked["fp32"]).backbone.is_bf16
