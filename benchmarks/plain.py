"""The plain way of a TaI-DPT step: captions and prompts padded to 77 tokens, again in each step."""

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F

RN50: Final[dict[str, Any]] = {
    "model": "RN50-quickgelu",
    "pretrained": "",
    "seed": 0,
    "resolution": None,
    "device": "cpu",
}
"""What is measured on: arguments of `tasks.backbone.loading`."""


def encode_padded(clip: Any, embeddings: Tensor) -> Tensor:
    """Projected features [B, 77, d] of token embeddings [B, 77, w]."""
    hidden = clip.transformer(embeddings + clip.positional_embedding, attn_mask=clip.attn_mask)
    features: Tensor = clip.ln_final(hidden) @ clip.text_projection
    return features


def prompt_features(
    clip: Any, tokenizer: Any, names: Sequence[str], context: Tensor, position: str = "end"
) -> Tensor:
    """[C, d] features at EOT of prompts with context tokens [M, w], or [C, M, w] of each class."""
    contexts = context.shape[-2]
    tokens = tokenizer([f"{' '.join(['X'] * contexts)} {name}." for name in names])
    ends = tokens.argmax(dim=1)
    # SOS, if the tokenizer puts one before a text
    starts = int(tokenizer([""]).argmax())
    before = {"end": contexts, "middle": contexts // 2, "front": 0}[position]
    learnt = context.expand(len(names), -1, -1)
    prompts = []
    for row, of_class, end in zip(clip.token_embedding(tokens), learnt, ends, strict=True):
        name, rest = row[starts + contexts : end - 1], row[end - 1 :]
        prompts.append(torch.cat([row[:starts], of_class[:before], name, of_class[before:], rest]))
    return encode_padded(clip, torch.stack(prompts))[torch.arange(len(names)), ends]


def caption_features(clip: Any, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Token features [B, 77, d], the features at EOT [B, d], and which tokens are no padding."""
    with torch.no_grad():
        dense = encode_padded(clip, clip.token_embedding(tokens))
    ends = tokens.argmax(dim=1)
    inside = torch.arange(tokens.shape[1]) <= ends[:, None]
    return dense, dense[torch.arange(len(tokens)), ends], inside


def ranking_loss(scores: Tensor, labels: Tensor, margin: float, scale: float) -> Tensor:
    """Over all pairs of classes [B, C, C]."""
    hinge = F.relu(margin - scale * (scores[:, :, None] - scores[:, None, :]))
    pairs = labels[:, :, None] & ~labels[:, None, :]
    return (hinge * pairs).sum(dim=(1, 2)).mean()


def loss(
    clip: Any,
    tokenizer: Any,
    names: Sequence[str],
    context: Tensor,
    tokens: Tensor,
    labels: Tensor,
    *,
    kappa: float,
    margin: float,
    scale: float,
    position: str = "end",
) -> Tensor:
    """TaI-DPT's loss of captions [B, 77] for contexts [2, (C,) M, w], global and local."""
    dense, at_end, inside = caption_features(clip, tokens)
    global_prompts, local_prompts = (
        F.normalize(prompt_features(clip, tokenizer, names, each, position), dim=-1)
        for each in context
    )
    of_global = F.normalize(at_end, dim=-1) @ global_prompts.T
    cosines = F.normalize(dense, dim=-1) @ local_prompts.T
    weights = (kappa * cosines).masked_fill(~inside[:, :, None], float("-inf")).softmax(dim=1)
    of_local = (weights * cosines).sum(dim=1)
    return ranking_loss(of_global, labels, margin, scale) + ranking_loss(
        of_local, labels, margin, scale
    )
