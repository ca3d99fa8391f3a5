import copy
import json

import open_clip
import pytest
import torch
from torch.nn import functional as F

from models.backbone import Backbone, fold_batch_norms
from models.captions import encode_captions

from .conftest import small_backbone, small_clip

TEXTS = ["a dog", "two people ride their bikes along the river", ""]


def images(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, 64, 64, dtype=torch.float64, generator=torch.manual_seed(1))


def test_pooled_is_the_towers_own_output(backbone: Backbone) -> None:
    features = backbone.encode_images(images())
    torch.testing.assert_close(features.pooled, backbone.clip.encode_image(images()))


def test_text_features_are_the_towers_own(backbone: Backbone) -> None:
    tokens = backbone.tokenize(TEXTS)
    hidden = backbone.encode_text(tokens)
    at_end = backbone.project(hidden)[torch.arange(3), backbone.lengths(tokens) - 1]
    torch.testing.assert_close(at_end, backbone.clip.encode_text(tokens))


def test_padding_may_be_cut(backbone: Backbone) -> None:
    tokens = backbone.tokenize(TEXTS)
    longest = int(backbone.lengths(tokens).max())
    assert longest < tokens.shape[1]
    cut = backbone.encode_text(tokens[:, :longest])
    torch.testing.assert_close(cut, backbone.encode_text(tokens)[:, :longest])


@pytest.mark.parametrize("backbone", ["resnet"], indirect=True)
def test_plain_pool_is_the_pool_without_positions(backbone: Backbone) -> None:
    plain = backbone.encode_images(images()).pooled_plain
    backbone.clip.visual.attnpool.positional_embedding.data.zero_()
    torch.testing.assert_close(plain, backbone.clip.encode_image(images()))


@pytest.mark.parametrize("backbone", ["resnet"], indirect=True)
def test_dense_is_value_then_output_projection_of_each_cell(backbone: Backbone) -> None:
    tower = backbone.clip.visual
    grid = tower.layer4(tower.layer3(tower.layer2(tower.layer1(tower.stem(images())))))
    pool, dense = tower.attnpool, backbone.encode_images(images()).dense
    assert dense.shape == (3, 4, 48)
    for row in range(2):
        for column in range(2):
            cell = pool.c_proj(pool.v_proj(grid[1, :, row, column]))
            torch.testing.assert_close(dense[1, 2 * row + column], cell)


@pytest.mark.parametrize("backbone", ["vit"], indirect=True)
def test_dense_of_a_vit_attends_to_itself_alone(backbone: Backbone) -> None:
    tower = backbone.clip.visual
    hidden = tower._embeds(images())
    *before, last = tower.transformer.resblocks
    for block in before:
        hidden = block(hidden)
    # the library's own attention, under a mask that leaves each position only itself
    alone = torch.full((17, 17), float("-inf"), dtype=torch.float64).fill_diagonal_(0)
    expected = tower.ln_post(last(hidden, attn_mask=alone))[:, 1:] @ tower.proj
    torch.testing.assert_close(backbone.encode_images(images()).dense, expected)


@pytest.mark.parametrize("backbone", ["resnet"], indirect=True)
def test_a_folded_tower_is_the_same_function_without_batch_norms(backbone: Backbone) -> None:
    tower, draws = backbone.clip.visual, torch.manual_seed(3)
    norms = [module for module in tower.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            values.data.copy_(torch.rand(values.shape, generator=draws, dtype=torch.float64) + 0.5)
    before = backbone.encode_images(images())
    fold_batch_norms(tower)
    assert len(norms) == 3 + 4 * 4
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in tower.modules())
    after = backbone.encode_images(images())
    for name in ("pooled", "pooled_plain", "dense"):
        torch.testing.assert_close(getattr(after, name), getattr(before, name))


def test_in_bf16_features_point_the_same_way_and_come_out_as_float32(backbone: Backbone) -> None:
    single = Backbone(copy.deepcopy(backbone.clip).float(), backbone.tokenize)
    single.use_bf16()
    tokens = backbone.tokenize(TEXTS)
    pairs = [(single.encode_text(tokens), backbone.encode_text(tokens))]
    rounded, exact = single.encode_images(images()), backbone.encode_images(images())
    pairs += [
        (getattr(rounded, name), getattr(exact, name))
        for name in ("pooled", "pooled_plain", "dense")
    ]
    for found, expected in pairs:
        assert found.dtype == torch.float32
        assert not torch.equal(found, expected.float())
        assert F.cosine_similarity(found, expected.float(), dim=-1).min() > 0.999


@pytest.mark.parametrize("backbone", ["resnet"], indirect=True)
def test_another_resolution_keeps_its_grid(backbone: Backbone) -> None:
    larger = F.interpolate(images(), size=96)
    assert backbone.encode_images(larger).dense.shape == (3, 9, 48)


def test_every_text_tower_of_open_clip_gives_its_own_vectors() -> None:
    towers: dict[str, list[str]] = {}
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        text = config["text_cfg"]
        # towers of the `transformers` library are not open_clip's, and none is causal
        if "hf_model_name" in text:
            continue
        # the real tower but for its size and its tokenizer
        text |= {"width": 32, "heads": 4, "layers": 1, "vocab_size": 64, "context_length": 12}
        text = {field: text[field] for field in text if "tokenizer" not in field}
        text["is_custom"] = config.get("custom_text", False)
        text["quick_gelu"] = config.get("quick_gelu", False)
        towers.setdefault(json.dumps(text, sort_keys=True), []).append(name)
    causal: list[str] = []
    others: list[str] = []
    for tower, names in towers.items():
        text = json.loads(tower)
        clip = small_clip(**text)
        eos = text.get("eos_id", 2) if text.get("pool_type") == "eos" else 63
        tokens = torch.tensor([[60, eos, 0, 0, 0], [60, 7, 8, 9, eos]])
        padded = F.pad(tokens, (0, 7))
        backbone = Backbone(clip, lambda texts, padded=padded: padded[: len(texts)])
        given = clip.encode_text(padded)
        expected = given[0] if isinstance(given, tuple) else given
        torch.testing.assert_close(backbone.encode_sentences(tokens), expected)
        assert backbone.dim == expected.shape[1]
        assert backbone.lengths(tokens).tolist() == [2, 5]
        is_causal = not text.get("no_causal_mask", False) and not text.get("embed_cls", False)
        assert backbone.is_causal == is_causal, names
        if is_causal:
            found = backbone.encode_text(tokens)
            at_end = backbone.project(found)[torch.arange(2), backbone.lengths(tokens) - 1]
            torch.testing.assert_close(at_end, expected)
        else:
            with pytest.raises(ValueError, match=r"class token|causal mask"):
                backbone.encode_text(tokens)
        (causal if is_causal else others).extend(names)
    assert {"RN50-quickgelu", "EVA02-B-16", "ViT-H-14-worldwide"} <= set(causal)
    assert {"coca_ViT-B-32", "ViT-B-16-SigLIP"} <= set(others)


def test_a_tokenizer_with_two_start_tokens_is_not_for_prompts() -> None:
    clip = small_clip(pool_type="eos", eos_id=1)
    backbone = Backbone(clip, lambda texts: torch.tensor([[7, 8, 1, 0]] * len(texts)))
    assert "2 tokens before" in backbone.why_not_causal


def test_a_tower_without_causal_mask_is_not_for_prompts(backbone: Backbone) -> None:
    backbone.clip.attn_mask = None
    assert Backbone(backbone.clip, backbone.tokenize).why_not_causal == "without a causal mask"


def test_a_tower_that_pools_elsewhere_is_not_for_prompts(backbone: Backbone) -> None:
    backbone.clip.text_pool_type = "last"
    assert "'last'" in Backbone(backbone.clip, backbone.tokenize).why_not_causal


@pytest.mark.parametrize("starts", [1, 0])
def test_captions_are_encoded_without_padding(starts: int) -> None:
    backbone = small_backbone(starts=starts)
    tokens = backbone.tokenize(["", "a dog", "a cat", *TEXTS[1:2], "one two three four five six"])
    lengths = backbone.lengths(tokens)
    order = lengths.argsort(stable=True)
    tokens, lengths = tokens[order], lengths[order]
    inside = torch.arange(tokens.shape[1]) < lengths[:, None]
    found, projected = encode_captions(backbone, tokens[inside], lengths)
    torch.testing.assert_close(found, backbone.encode_text(tokens)[inside])
    assert backbone.projection is not None
    torch.testing.assert_close(projected, found @ backbone.projection)
