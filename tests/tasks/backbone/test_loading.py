"""Which of open_clip's models do what, and what is said of the others before work starts."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tasks.backbone.devices import native_precision, precision_of
from tasks.backbone.loading import check_backbone, identity_of, load
from tasks.errors import InputError
from tasks.methods.needs import check_needs
from tasks.profile import load_profile
from tests.tasks.road import whole_run

SMALL = Path(__file__).parents[2] / "small" / "tiny-clip.json"


def test_an_unknown_model_is_one_sentence() -> None:
    with pytest.raises(InputError, match=r"field 'backbone\.model'.*did you mean RN50-quickgelu"):
        check_backbone("RN5O-quickgelu", "")


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("coca_ViT-B-32", "that appends a class token"),
        ("ViT-B-16-SigLIP", "without a causal mask"),
        ("roberta-ViT-B-32", "of the transformers library"),
        ("EVA02-B-16", ""),
        ("RN50-quickgelu", ""),
    ],
)
def test_a_method_that_tunes_prompts_is_told_what_the_model_lacks(model: str, reason: str) -> None:
    profile = load_profile("coco2014", {"backbone.model": model, "run": ["zero-shot", "tai-dpt"]})
    if not reason:
        check_needs(profile)
        return
    with pytest.raises(InputError, match=rf"tai-dpt needs a causal text tower.*{reason}") as told:
        check_needs(profile)
    able = str(told.value).rpartition(": ")[2].split(", ")
    assert {"zero-shot", "zero-shot-centred", "close", "comc", "phrase-patches"} <= set(able)
    assert not {"tai", "tai-dpt", "coop"} & set(able)
    check_needs(load_profile(profile, {"run": ["zero-shot", "close"]}))


@pytest.mark.skipif(find_spec("transformers") is not None, reason="transformers is installed")
@pytest.mark.parametrize("model", ["ViT-L-14-worldwide", "roberta-ViT-B-32"])
def test_what_is_not_installed_is_said(model: str) -> None:
    with pytest.raises(InputError, match="pip install transformers"):
        check_backbone(model, "")


TEXT: dict[str, Any] = {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 4}
TEXT["layers"] = 1
VIT = {"image_size": 32, "layers": 2, "width": 64, "head_width": 16, "patch_size": 16}
COCA = VIT | {"attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True}
# a small one of each kind of towers that open_clip lists: SigLIP, CoCa, CLIPA, timm
KINDS: dict[str, dict[str, Any]] = {
    "map": {
        "vision_cfg": {
            "image_size": 160,
            "timm_model_name": "test_vit3",
            "timm_pool": "map",
            "timm_proj": "linear",
        },
        "text_cfg": TEXT | {"no_causal_mask": True, "pool_type": "last", "proj_bias": True},
        "custom_text": True,
    },
    "coca": {
        "vision_cfg": COCA,
        "text_cfg": TEXT | {"embed_cls": True, "output_tokens": True},
        "multimodal_cfg": TEXT,
        "custom_text": True,
    },
    "clipa": {
        "vision_cfg": VIT | {"pool_type": "avg", "final_ln_after_pool": True},
        "text_cfg": TEXT | {"no_causal_mask": True, "pool_type": "last"},
    },
    "convnext": {
        "vision_cfg": {
            "image_size": 160,
            "timm_model_name": "test_convnext",
            "timm_pool": "",
            "timm_proj": "mlp",
        },
        "text_cfg": TEXT,
    },
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_each_kind_of_towers_goes_through_the_small_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("TAI_HOME", str(tmp_path / "home"))
    config = tmp_path / f"small-{kind}.json"
    config.write_text(json.dumps({"embed_dim": 48, **KINDS[kind]}))
    run = ["zero-shot", "zero-shot-centred", "close", "phrase-patches"]
    settings = {"backbone.model": str(config), "run": run, "captions.per_class": 5}
    profile = load_profile(SMALL.with_name("small.toml").as_posix(), settings)
    outcome = whole_run(profile)
    for name in run:
        figures = outcome.evaluations[name]["small"].figures
        assert {"mAP/global", "mAP/local", "mAP/merged"} <= set(figures)


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
