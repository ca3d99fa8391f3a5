"""Image towers of every kind: the library's own global feature, and positions by themselves."""

import open_clip
import pytest
import timm
import torch
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor

from models.towers import features_of

SIZE = 96


def images(size: int = SIZE) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.manual_seed(1), dtype=torch.float64)


def vit(**choice: object) -> VisionTransformer:
    torch.manual_seed(0)
    given = {"image_size": SIZE, "patch_size": 32, "width": 32, "layers": 2, "heads": 4}
    given |= {"mlp_ratio": 2.0, "output_dim": 16, "attn_pooler_heads": 4, **choice}
    return VisionTransformer(**given).double().eval()  # type: ignore[arg-type]


def of_timm(name: str, pool: str, proj: str = "linear") -> TimmModel:
    torch.manual_seed(0)
    size = timm.get_pretrained_cfg(name).input_size[-1]
    return TimmModel(name, 16, size, pool=pool, proj=proj).double().eval()


def last_hidden(tower: VisionTransformer) -> Tensor:
    return tower.transformer(tower._embeds(images()))


def test_a_mean_pooled_vit_is_the_mean_of_its_positions() -> None:
    tower = vit(pool_type="avg")
    whole, plain, dense = features_of(tower, images())
    torch.testing.assert_close(whole, tower(images()))
    assert plain.equal(whole)
    assert dense.shape == (2, 9, 16)
    torch.testing.assert_close(dense.mean(dim=1), whole)


def test_clipas_norm_comes_after_the_mean() -> None:
    tower = vit(pool_type="avg", final_ln_after_pool=True)
    whole, _, dense = features_of(tower, images())
    torch.testing.assert_close(whole, tower(images()))
    expected = tower.ln_post(last_hidden(tower)[1, 4]) @ tower.proj
    torch.testing.assert_close(dense[1, 3], expected)


def test_an_attention_pool_sees_one_position_under_a_mask() -> None:
    tower = vit(attentional_pool=True, attn_pooler_queries=5)
    whole, _, dense = features_of(tower, images())
    torch.testing.assert_close(whole, tower(images()))
    pool, hidden = tower.attn_pool, last_hidden(tower)
    for place in range(9):
        mask = torch.ones(2, 10, dtype=torch.bool)
        mask[:, place + 1] = False
        keys = pool.ln_k(hidden)
        query = pool.ln_q(pool.query).expand(2, -1, -1)
        pooled, _ = pool.attn(query, keys, keys, key_padding_mask=mask)
        torch.testing.assert_close(dense[:, place], tower.ln_post(pooled[:, 0]) @ tower.proj)


def test_a_vit_of_other_blocks_attends_to_itself_alone_in_the_last() -> None:
    tower = vit(final_ln_after_pool=True)
    whole, _, dense = features_of(tower, images())
    torch.testing.assert_close(whole, tower(images()))
    *before, last = tower.transformer.resblocks
    hidden = tower._embeds(images())
    for block in before:
        hidden = block(hidden)
    alone = torch.full((10, 10), float("-inf"), dtype=torch.float64).fill_diagonal_(0)
    expected = tower.ln_post(last(hidden, attn_mask=alone)[:, 1:]) @ tower.proj
    torch.testing.assert_close(dense, expected)


@pytest.mark.parametrize("proj", ["linear", "mlp"])
@pytest.mark.parametrize("name", ["test_convnext", "test_resnet", "test_vit"])
def test_timms_towers_that_pool_by_the_mean(name: str, proj: str) -> None:
    tower = of_timm(name, "avg", proj)
    given = images(tower.image_size[0])
    whole, _, dense = features_of(tower, given)
    torch.testing.assert_close(whole, tower(given))
    found = tower.trunk.forward_features(given)
    if name == "test_resnet":
        cell = tower.head(found[1, :, 2, 1])
        torch.testing.assert_close(dense[1, 2 * found.shape[-1] + 1], cell)
    if name == "test_vit":
        cell = tower.head(tower.trunk.fc_norm(found[1, 6]))
        torch.testing.assert_close(dense[1, 6 - tower.trunk.num_prefix_tokens], cell)
    assert dense.shape[1] > 1


def test_timms_vit_with_a_class_token_attends_to_itself_alone_in_the_last() -> None:
    tower = of_timm("test_vit", "token")
    given = images(tower.image_size[0])
    whole, _, dense = features_of(tower, given)
    torch.testing.assert_close(whole, tower(given))
    trunk = tower.trunk
    hidden = trunk.norm_pre(trunk.patch_drop(trunk._pos_embed(trunk.patch_embed(given))))
    for block in trunk.blocks[:-1]:
        hidden = block(hidden)
    last = trunk.blocks[-1]
    # the value path by hand: with one key, attention is the value
    normed = last.norm1(hidden[:, 1:])
    value = last.attn.qkv(normed)[..., -normed.shape[-1] :]
    patches = hidden[:, 1:] + last.ls1(last.attn.proj(last.attn.norm(value)))
    patches = patches + last.ls2(last.mlp(last.norm2(patches)))
    expected = tower.head(trunk.head_drop(trunk.fc_norm(trunk.norm(patches))))
    torch.testing.assert_close(dense, expected)


def test_timms_attention_pool_over_one_position() -> None:
    tower = of_timm("test_vit3", "map", "none")
    given = images(tower.image_size[0])
    whole, _, dense = features_of(tower, given)
    torch.testing.assert_close(whole, tower(given))
    trunk, pool = tower.trunk, tower.trunk.attn_pool
    found = trunk.forward_features(given)[1, trunk.num_prefix_tokens + 4]
    _, value = pool.kv(found).chunk(2)
    pooled = pool.proj(pool.v_norm(value) if hasattr(pool, "v_norm") else value)
    pooled = pooled + pool.mlp(pool.norm(pooled))
    torch.testing.assert_close(dense[1, 4], tower.head(trunk.fc_norm(pooled)))


def test_relative_places_are_no_obstacle() -> None:
    tower = of_timm("test_vit_relpos", "avg")
    given = images(tower.image_size[0])
    whole, _, dense = features_of(tower, given)
    torch.testing.assert_close(whole, tower(given))
    assert dense.shape[1] > 1


def test_a_tower_that_cannot_tell_positions_apart_has_the_whole_image_as_one() -> None:
    class Flat(torch.nn.Module):
        def forward(self, given: Tensor) -> Tensor:
            return given.flatten(1)[:, :7]

    whole, _, dense = features_of(Flat(), images())
    assert dense.equal(whole[:, None])


def test_coca_gives_its_own_features() -> None:
    config = open_clip.get_model_config("coca_ViT-B-32")
    assert config["vision_cfg"]["attentional_pool"]
    tower = vit(attentional_pool=True, output_tokens=True, attn_pooler_queries=4)
    whole, _, _ = features_of(tower, images())
    torch.testing.assert_close(whole, tower(images())[0])
