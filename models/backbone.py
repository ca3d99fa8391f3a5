"""One interface to open_clip's frozen CLIPs: ResNet and ViT image towers, causal text towers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from open_clip.transformer import ResidualAttentionBlock, TextTransformer, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

Tokenizer = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True)
class ImageFeatures:
    """What one pass of the image tower gives; not normalised."""

    pooled: Tensor
    """[B, d] the tower's own output (`encode_image`): CLIP's own global feature."""
    pooled_plain: Tensor
    """[B, d] the attention pool without its positional embedding: TaI-DPT's global feature.

    The same as `pooled` for a ViT, which has no such pool.
    """
    dense: Tensor
    """[B, N, d] the feature of every position, in the joint space."""

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> "ImageFeatures":
        """The same features elsewhere, as another type."""
        return ImageFeatures(
            self.pooled.to(device, dtype),
            self.pooled_plain.to(device, dtype),
            self.dense.to(device, dtype),
        )


class Backbone(nn.Module):
    """A frozen CLIP: token features of texts, global and dense features of images.

    Attributes:
        is_bf16: whether matrix products and convolutions are computed in bfloat16; what comes out
            is float32 all the same.

    Raises:
        ValueError: a tower is not of a kind that prompts can be tuned on.

    """

    def __init__(self, clip: nn.Module, tokenizer: Tokenizer) -> None:
        super().__init__()
        _check_text_tower(clip)
        _check_image_tower(clip.visual)
        # Any: open_clip's towers are duck-typed attributes
        self.clip: Any = clip.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self.is_bf16 = False
        self.starts = int(self.lengths(self.tokenize([""]))) - 1
        """Start tokens before a text: one (SOS), or none, as by mT5's tokenizer."""
        if self.starts > 1:
            raise ValueError(f"the tokenizer puts {self.starts} tokens before a text; expected one")

    def use_bf16(self) -> None:
        """Compute in bfloat16 from now on; for use alone, not for training.

        The image tower has all its weights in it, the text tower those of its matrix products: its
        residual stream stays float32.
        """
        self.is_bf16 = True
        self.clip.visual.to(torch.bfloat16)
        for module in self.text.transformer.modules():
            if isinstance(module, nn.Linear | nn.MultiheadAttention):
                module.to(torch.bfloat16)

    def computing(self) -> torch.autocast:
        """The context in which the text tower's layers compute as they should."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_bf16)

    @property
    def text(self) -> Any:
        """The text tower: a module of its own, or the CLIP that holds its parts."""
        return _text_tower(self.clip)

    @property
    def width(self) -> int:
        """Width w of the text tower."""
        return int(self.text.ln_final.normalized_shape[0])

    @property
    def dim(self) -> int:
        """Width d of the joint space."""
        return self.width if self.projection is None else int(self.projection.shape[1])

    @property
    def context_length(self) -> int:
        """Positions of the text tower, 77 in CLIP."""
        return int(self.text.context_length)

    @property
    def logit_scale(self) -> float:
        """Factor on cosines of classes and images, 100 in CLIP."""
        return float(self.clip.logit_scale.exp())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.text.ln_final.weight.device
        return device

    @property
    def projection(self) -> Tensor | None:
        """[w, d] matrix from hidden states to the joint space, None where they are the same."""
        projection = self.text.text_projection
        matrix: Tensor | None = (
            projection.weight.T if isinstance(projection, nn.Linear) else projection
        )
        return matrix

    @property
    def blocks(self) -> list[ResidualAttentionBlock]:
        """The text tower's layers."""
        return list(self.text.transformer.resblocks)

    def tokenize(self, texts: Sequence[str], length: int | None = None) -> Tensor:
        """[B, length] int64 token ids, 0 after EOT; longer texts are cut, EOT is kept.

        The tower takes no more than context_length of them, which is the default.
        """
        if length is None:
            return self._tokenizer(list(texts))
        tokenizer: Any = self._tokenizer
        tokens: Tensor = tokenizer(list(texts), context_length=length)
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids; a token that ends a word ends in a space."""
        tokenizer: Any = self._tokenizer
        return str(tokenizer.decode(tokens))

    def lengths(self, tokens: Tensor) -> Tensor:
        """[B] number of positions up to and with EOT: the tower's `eos_id`, or the highest id."""
        pool, eos = _pooling(self.text)
        ends = tokens if pool == "argmax" else (tokens == eos).int()
        return ends.argmax(dim=-1) + 1

    def embed(self, tokens: Tensor) -> Tensor:
        """[..., w] token embeddings, without positions."""
        embedded: Tensor = self.text.token_embedding(tokens)
        return embedded

    @property
    def positions(self) -> Tensor:
        """[context_length, w] positional embeddings."""
        embedding: Tensor = self.text.positional_embedding
        return embedding

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Hidden states [B, L, w] of token ids [B, L], after the last layer norm.

        The tower is causal, so columns after the longest EOT may be cut without any effect.
        """
        length = tokens.shape[1]
        embedded = self.embed(tokens) + self.positions[:length]
        mask = self.text.attn_mask[:length, :length]
        with self.computing():
            hidden = self.text.transformer(embedded, attn_mask=mask)
        normed: Tensor = self.text.ln_final(hidden)
        return normed

    def finish(self, hidden: Tensor) -> Tensor:
        """Last layer norm and projection of raw hidden states: [..., w] -> [..., d]."""
        return self.project(self.text.ln_final(hidden))

    def project(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., w] in the joint space [..., d]; a Linear's bias is refused."""
        return hidden if self.projection is None else hidden @ self.projection

    def encode_images(self, images: Tensor) -> ImageFeatures:
        """Global and dense features of images [B, 3, R, R], in one pass of the tower."""
        tower = self.clip.visual
        features_of = _resnet_features if isinstance(tower, ModifiedResNet) else _vit_features
        if not self.is_bf16:
            return features_of(tower, images)
        return features_of(tower, images.bfloat16()).to(images.device)


def fold_batch_norms(module: nn.Module) -> None:
    """Fold each batch norm of a ModifiedResNet into the convolution before it, in place; exact."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d):
            before = name.replace("bn", "conv") if name.startswith("bn") else "0"
            convolution: Any = module.get_submodule(before)
            setattr(module, before, fuse_conv_bn_eval(convolution, child))
            setattr(module, name, nn.Identity())
        else:
            fold_batch_norms(child)


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Multi-head attention of [B, Q, w] over [B, K, w], before the output projection."""
    split = (
        x.unflatten(-1, (heads, x.shape[-1] // heads)).transpose(1, 2) for x in (query, key, value)
    )
    return F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)


def _resnet_features(tower: ModifiedResNet, images: Tensor) -> ImageFeatures:
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
    return ImageFeatures(pool.c_proj(pooled), pool.c_proj(plain), pool.c_proj(value[:, 1:]))


def _resized(position: Tensor, grid: torch.Size) -> Tensor:
    """The pool's positional embedding [1 + n*n, c] on another grid, by bicubic interpolation."""
    side = round((len(position) - 1) ** 0.5)
    if (side, side) == tuple(grid):
        return position
    square = position[1:].T.reshape(1, -1, side, side)
    cells = F.interpolate(square, size=tuple(grid), mode="bicubic", align_corners=False)
    return torch.cat([position[:1], cells.flatten(2)[0].T])


def _vit_features(tower: VisionTransformer, images: Tensor) -> ImageFeatures:
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
    return ImageFeatures(features[:, 0], features[:, 0], features[:, 1:])


def _check_text_tower(clip: nn.Module) -> None:
    text = _text_tower(clip)
    names = ("transformer", "token_embedding", "positional_embedding", "ln_final", "attn_mask")
    if not all(hasattr(text, name) for name in names):
        raise ValueError(f"text tower {type(text).__name__}: expected one of open_clip's own")
    mask, length = text.attn_mask, len(text.positional_embedding)
    causal = torch.full((length, length), float("-inf")).triu(1)
    if mask is None or mask.shape != causal.shape or not torch.equal(mask.cpu().float(), causal):
        raise ValueError("the text tower has no causal mask; expected one, as in CLIP")
    if getattr(text, "cls_emb", None) is not None:
        raise ValueError("the text tower appends a class token, as CoCa; expected to end at EOT")
    pool, _ = _pooling(text)
    if pool not in ("argmax", "eos"):
        raise ValueError(f"the text tower pools by {pool!r}; expected 'argmax' or 'eos', at EOT")
    if not all(type(block) is ResidualAttentionBlock for block in text.transformer.resblocks):
        raise ValueError("the text tower's layers are not open_clip's ResidualAttentionBlock")
    if isinstance(text.text_projection, nn.Linear) and text.text_projection.bias is not None:
        raise ValueError("the text projection has a bias; expected a matrix, as in CLIP")


def _text_tower(clip: nn.Module) -> Any:
    return getattr(clip, "text", clip)


def _pooling(text: Any) -> tuple[str, int]:
    """How a text tower finds EOT, and its token id where it goes by that."""
    prefix = "" if isinstance(text, TextTransformer) else "text_"
    return getattr(text, f"{prefix}pool_type", "none"), getattr(text, f"{prefix}eos_id", -1)


def _check_image_tower(tower: Any) -> None:
    if isinstance(tower, ModifiedResNet):
        return
    is_plain_vit = (
        isinstance(tower, VisionTransformer)
        and tower.attn_pool is None
        and tower.pool_type == "tok"
        and not tower.final_ln_after_pool
        and all(type(block) is ResidualAttentionBlock for block in tower.transformer.resblocks)
    )
    if not is_plain_vit:
        raise ValueError(
            f"image tower {type(tower).__name__}: expected CLIP's ModifiedResNet, or a "
            "VisionTransformer that pools by its class token"
        )
