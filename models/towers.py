"""Image towers: the global feature, and every position as if it stood alone.

What a position of CLIP's ResNet says is what its attention pool would give if that position were
all there is (METHODS 1). The same is asked of any tower here: its pool, be it an attention, a mean
or a class token, and all that comes behind it, get one position at a time.
"""

from typing import Any

import torch
from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor
from torch.nn import functional as F

Pair = tuple[Tensor, Tensor]
"""The global feature [B, d], and those of N positions [B, N, d]."""
Triple = tuple[Tensor, Tensor, Tensor]
"""The global feature, the same without the pool's positional embedding, those of positions."""


def features_of(tower: Any, images: Tensor) -> Triple:
    """Features of any image tower of open_clip.

    Where positions cannot be told apart, the whole image is the only one: N = 1.
    """
    if is_clips_own(tower):
        own = _resnet_features if isinstance(tower, ModifiedResNet) else _vit_features
        return own(tower, images)
    whole, dense = _features_of_others(tower, images)
    return whole, whole, dense


def is_clips_own(tower: Any) -> bool:
    """CLIP's ModifiedResNet, or a ViT that pools by its class token behind the last layer norm."""
    return isinstance(tower, ModifiedResNet) or (
        isinstance(tower, VisionTransformer)
        and tower.attn_pool is None
        and tower.pool_type == "tok"
        and not tower.final_ln_after_pool
        and all(type(block) is ResidualAttentionBlock for block in tower.transformer.resblocks)
    )


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Multi-head attention of [B, Q, w] over [B, K, w], before the output projection."""
    split = (
        x.unflatten(-1, (heads, x.shape[-1] // heads)).transpose(1, 2) for x in (query, key, value)
    )
    return F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)


def _resnet_features(tower: ModifiedResNet, images: Tensor) -> Triple:
    """Features of a ResNet with attention pool (METHODS 1: value, then output projection)."""
    feature_map = tower.layer4(tower.layer3(tower.layer2(tower.layer1(tower.stem(images)))))
    pool: AttentionPool2d = tower.attnpool
    cells = feature_map.flatten(2).transpose(1, 2)
    cells = torch.cat([cells.mean(dim=1, keepdim=True), cells], dim=1)
    key, value = pool.k_proj(cells), pool.v_proj(cells)
    query = pool.q_proj(cells[:, :1])
    # projections are linear, so the positional embedding is projected once and added after
    position = _resized(pool.positional_embedding, feature_map.shape[-2:])
    q_shift, k_shift, v_shift = (
        F.linear(part, layer.weight)
        for part, layer in (
            (position[:1], pool.q_proj),
            (position, pool.k_proj),
            (position, pool.v_proj),
        )
    )
    heads = pool.num_heads
    pooled = attend(query + q_shift, key + k_shift, value + v_shift, heads)[:, 0]
    plain = attend(query, key, value, heads)[:, 0]
    return pool.c_proj(pooled), pool.c_proj(plain), pool.c_proj(value[:, 1:])


def _resized(position: Tensor, grid: torch.Size) -> Tensor:
    """The pool's positional embedding [1 + n*n, c] on another grid, by bicubic interpolation."""
    side = round((len(position) - 1) ** 0.5)
    if (side, side) == tuple(grid):
        return position
    square = position[1:].T.reshape(1, -1, side, side)
    cells = F.interpolate(square, size=tuple(grid), mode="bicubic", align_corners=False)
    return torch.cat([position[:1], cells.flatten(2)[0].T])


def _vit_features(tower: VisionTransformer, images: Tensor) -> Triple:
    """Features of a ViT; in the last layer a dense position attends to itself alone."""
    hidden = tower._embeds(images)
    *before, last = tower.transformer.resblocks
    for block in before:
        hidden = block(hidden)
    patches = hidden[:, 1:]
    attention = last.attn
    width = attention.embed_dim
    value = F.linear(
        last.ln_1(patches),
        attention.in_proj_weight[2 * width :],
        attention.in_proj_bias[2 * width :],
    )
    patches = patches + last.ls_1(attention.out_proj(value))
    patches = patches + last.ls_2(last.mlp(last.ln_2(patches)))
    features = tower.ln_post(torch.cat([last(hidden)[:, :1], patches], dim=1))
    if tower.proj is not None:
        features = features @ tower.proj
    return features[:, 0], features[:, 0], features[:, 1:]


def _features_of_others(tower: Any, images: Tensor) -> Pair:
    cascaded = getattr(tower, "attn_pool_contrastive", None) is not None
    if isinstance(tower, VisionTransformer) and not cascaded:
        return _vit(tower, images)
    if isinstance(tower, TimmModel) and not hasattr(tower.head, "pool"):
        return _timm(tower, images)
    found = tower(images)
    whole: Tensor = found[0] if isinstance(found, tuple) else found
    return whole, whole[:, None]


def _vit(tower: VisionTransformer, images: Tensor) -> Pair:
    """A ViT that pools by attention (CoCa), by the mean (CLIPA) or by its class token."""
    *before, last = tower.transformer.resblocks
    hidden = tower._embeds(images)
    for block in before:
        hidden = block(hidden)
    final = last(hidden)
    whole, _ = tower._pool(final)
    patches = final[:, 1:]
    if tower.attn_pool is not None:
        pool = tower.attn_pool
        alone = pool.ln_k(patches.flatten(0, 1)[:, None])
        # over one position any query's attention is the same
        query = pool.ln_q(pool.query[:1])[None].expand(len(alone), -1, -1)
        pooled = pool.attn(query, alone, alone, need_weights=False)[0]
        patches = pooled[:, 0].unflatten(0, patches.shape[:2])
    elif tower.pool_type == "tok":
        patches = _alone(last, hidden[:, 1:])
    patches = tower.ln_post(patches)
    if tower.proj is not None:
        whole, patches = whole @ tower.proj, patches @ tower.proj
    return whole, patches


def _timm(tower: TimmModel, images: Tensor) -> Pair:
    """A tower of the timm library: maps of cells, or tokens."""
    trunk = tower.trunk
    by_token = getattr(trunk, "global_pool", "") == "token" and not _looks_around(trunk)
    entered: list[Tensor] = []
    hook = None
    if by_token:
        hook = trunk.blocks[-1].register_forward_pre_hook(lambda _, given: entered.append(given[0]))
    found = trunk.forward_features(images)
    if hook is not None:
        hook.remove()
    prefix = int(getattr(trunk, "num_prefix_tokens", 0))
    if found.ndim == 4:
        is_last = getattr(trunk, "output_fmt", "NCHW") == "NHWC"
        cells = found.flatten(1, 2) if is_last else found.flatten(2).transpose(1, 2)
        one = cells.flatten(0, 1)
        one = one[:, None, None] if is_last else one[..., None, None]
    else:
        cells = found[:, prefix:]
        if by_token:
            cells = trunk.norm(_alone(trunk.blocks[-1], entered[0][:, prefix:]))
        # a position takes the place of the class token too
        one = cells.flatten(0, 1)[:, None].expand(-1, prefix + 1, -1)
    whole: Tensor = tower.head(trunk.forward_head(found))
    positions: Tensor = tower.head(trunk.forward_head(one))
    return whole, positions.unflatten(0, cells.shape[:2])


def _alone(block: Any, patches: Tensor) -> Tensor:
    """A last layer's output [B, N, w] where each position attends to itself alone."""
    found = block(patches.flatten(0, 1)[:, None])
    alone: Tensor = found[:, 0].unflatten(0, patches.shape[:2])
    return alone


def _looks_around(trunk: Any) -> bool:
    """Whether attention has a table of relative places, which one position does not fit."""
    attention = getattr(trunk.blocks[-1], "attn", None)
    return getattr(attention, "rel_pos", None) is not None
