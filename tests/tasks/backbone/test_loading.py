"""Which of open_clip's models are refused, before work starts or when they are built."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from tasks.backbone.loading import check_backbone, load_backbone
from tasks.errors import InputError

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
