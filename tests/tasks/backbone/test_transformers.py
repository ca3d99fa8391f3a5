"""Text towers of the transformers library, small and random, on the small profile."""

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.profile import load_profile
from tests.tasks.road import whole_run

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
WORDS = ["a", "photo", "of", "two", "and", "with", "dog", "cat", "kite", "red", "near", "on", "."]
VIT = {"image_size": 32, "layers": 2, "width": 64, "head_width": 16, "patch_size": 16}


def tokenizer(has_start: bool) -> Any:
    """Whole words, an end, and a start as RoBERTa's or none as mT5's."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    whole = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106
    whole.pre_tokenizer = pre_tokenizers.Whitespace()
    whole.post_processor = processors.TemplateProcessing(
        single=f"{'<s> ' if has_start else ''}$A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    start = {"bos_token": "<s>", "cls_token": "<s>"} if has_start else {}
    rest = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=whole, **start, **rest)


def config(kind: str) -> Any:
    size = {"vocab_size": len(SPECIAL) + len(WORDS), "pad_token_id": 1}
    if kind == "mt5":
        return transformers.MT5Config(
            **size, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4
        )
    return transformers.RobertaConfig(
        **size,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=90,
    )


@pytest.mark.parametrize("kind", ["roberta", "mt5"])
def test_a_tower_of_transformers_goes_through_the_small_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("TAI_HOME", str(tmp_path / "home"))
    folder = tmp_path / kind
    config(kind).save_pretrained(folder)
    tokenizer(kind == "roberta").save_pretrained(folder)
    text = {"hf_model_name": str(folder), "hf_tokenizer_name": str(folder), "hf_proj_type": "mlp"}
    text |= {"hf_pooler_type": "mean_pooler"}
    model = tmp_path / f"small-{kind}.json"
    model.write_text(json.dumps({"embed_dim": 48, "vision_cfg": VIT, "text_cfg": text}))
    run = ["zero-shot", "close", "phrase-patches", "sparc"]
    settings = {"backbone.model": str(model), "run": run, "captions.per_class": 5}
    outcome = whole_run(load_profile("tests/small/small.toml", settings))
    for name in run:
        assert 0 <= outcome.evaluations[name]["small"].figures["mAP/merged"] <= 100
