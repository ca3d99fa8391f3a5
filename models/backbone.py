"""One interface to open_clip's frozen CLIPs, whatever their towers.

Prompts are tuned, and captions' tokens looked at, where the text tower is causal and ends at EOT.
Any other gives one vector for a text, which is all that many methods ask for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from open_clip.transformer import ResidualAttentionBlock, TextTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models import towers

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
    """A frozen CLIP: features of texts, global and dense features of images.

    Attributes:
        why_not_causal: what keeps prompts from being tuned, as a clause; '' where they can be.
        is_bf16: whether matrix products and convolutions are computed in bfloat16; what comes out
            is float32 all the same.

    """

    def __init__(self, clip: nn.Module, tokenizer: Tokenizer) -> None:
        super().__init__()
        # Any: open_clip's towers are duck-typed attributes
        self.clip: Any = clip.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self.is_bf16 = False
        self.why_not_causal = _why_not_causal(clip)
        empty = self.tokenize([""])
        self.padding = int(empty[0, -1])
        self._positions = empty.shape[1]
        self.starts = 0
        """Start tokens before a text: one (SOS), or none, as by mT5's tokenizer."""
        if self.is_causal:
            self.starts = int(self.lengths(empty)) - 1
            if self.starts > 1:
                self.why_not_causal = f"whose tokenizer puts {self.starts} tokens before a text"

    def use_bf16(self) -> None:
        """Compute in bfloat16 from now on; for use alone, not for training.

        The image tower has all its weights in it, the text tower those of its matrix products: its
        residual stream stays float32.
        """
        self.is_bf16 = True
        if towers.is_clips_own(self.clip.visual):
            self.clip.visual.to(torch.bfloat16)
        if not self.is_causal:
            return
        for module in self.text.transformer.modules():
            if isinstance(module, nn.Linear | nn.MultiheadAttention):
                module.to(torch.bfloat16)

    def computing(self) -> torch.autocast:
        """The context in which the text tower's layers compute as they should."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_bf16)

    @property
    def is_causal(self) -> bool:
        """Whether the text tower is causal and ends at EOT, so that prompts can be tuned."""
        return not self.why_not_causal

    @property
    def text(self) -> Any:
        """The causal text tower: a module of its own, or the CLIP that holds its parts.

        Raises:
            ValueError: it is of another kind.

        """
        if not self.is_causal:
            raise ValueError(f"no causal text tower: it is one {self.why_not_causal}")
        return _text_tower(self.clip)

    @property
    def width(self) -> int:
        """Width w of the text tower."""
        return int(self.text.ln_final.normalized_shape[0])

    @property
    def dim(self) -> int:
        """Width d of the joint space."""
        if not self.is_causal:
            return self._dim_of_texts
        return self.width if self.projection is None else int(self.projection.shape[1])

    @property
    def context_length(self) -> int:
        """Positions of the text tower, 77 in CLIP."""
        return int(self.text.context_length) if self.is_causal else self._positions

    @property
    def logit_scale(self) -> float:
        """Factor on cosines of classes and images, 100 in CLIP."""
        return float(self.clip.logit_scale.exp())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.clip.parameters()).device
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
        """[B] number of positions up to and with EOT: the tower's `eos_id`, or the highest id.

        Of a tower that is not causal, up to what is padding.
        """
        if not self.is_causal:
            place = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
            return ((tokens != self.padding) * place).amax(dim=1).clamp(min=1)
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

    def encode_sentences(self, tokens: Tensor) -> Tensor:
        """One vector [B, d] of each text of token ids [B, L]; not normalised.

        Padding up to the tower's own length is put back where it is looked at.
        """
        if self.is_causal:
            ends = self.lengths(tokens)
            hidden = self.encode_text(tokens[:, : int(ends.max())])
            return self.project(hidden[torch.arange(len(hidden), device=hidden.device), ends - 1])
        missing = self._positions - tokens.shape[1]
        padded = F.pad(tokens, (0, missing), value=self.padding)
        with self.computing():
            found = self.clip.encode_text(padded)
        # some towers give their tokens too
        whole: Tensor = found[0] if isinstance(found, tuple) else found
        return whole.float() if self.is_bf16 else whole

    @cached_property
    def _dim_of_texts(self) -> int:
        with torch.no_grad():
            return self.encode_sentences(self.tokenize([""]).to(self.device)).shape[1]

    def finish(self, hidden: Tensor) -> Tensor:
        """Last layer norm and projection of raw hidden states: [..., w] -> [..., d]."""
        return self.project(self.text.ln_final(hidden))

    def project(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., w] in the joint space [..., d]; a Linear's bias is refused."""
        return hidden if self.projection is None else hidden @ self.projection

    def encode_images(self, images: Tensor) -> ImageFeatures:
        """Global and dense features of images [B, 3, R, R], in one pass of the tower."""
        tower = self.clip.visual
        if not self.is_bf16:
            return ImageFeatures(*towers.features_of(tower, images))
        if towers.is_clips_own(tower):
            features = towers.features_of(tower, images.bfloat16())
        else:
            with self.computing():
                features = towers.features_of(tower, images)
        return ImageFeatures(*features).to(images.device)


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


def _why_not_causal(clip: nn.Module) -> str:
    """What keeps a text tower from being one that prompts can be tuned on; '' if nothing does."""
    text = _text_tower(clip)
    names = ("transformer", "token_embedding", "positional_embedding", "ln_final", "attn_mask")
    if not all(hasattr(text, name) for name in names):
        return f"that is not open_clip's own ({type(text).__name__})"
    mask, length = text.attn_mask, len(text.positional_embedding)
    causal = torch.full((length, length), float("-inf")).triu(1)
    if mask is None or mask.shape != causal.shape or not torch.equal(mask.cpu().float(), causal):
        return "without a causal mask"
    if getattr(text, "cls_emb", None) is not None:
        return "that appends a class token"
    pool, _ = _pooling(text)
    if pool not in ("argmax", "eos"):
        return f"that pools by {pool!r}, not at EOT"
    if not all(type(block) is ResidualAttentionBlock for block in text.transformer.resblocks):
        return "whose layers are not ResidualAttentionBlock"
    if isinstance(text.text_projection, nn.Linear) and text.text_projection.bias is not None:
        return "whose projection has a bias"
    return ""


def _text_tower(clip: nn.Module) -> Any:
    return getattr(clip, "text", clip)


def _pooling(text: Any) -> tuple[str, int]:
    """How a text tower finds EOT, and its token id where it goes by that."""
    prefix = "" if isinstance(text, TextTransformer) else "text_"
    return getattr(text, f"{prefix}pool_type", "none"), getattr(text, f"{prefix}eos_id", -1)
