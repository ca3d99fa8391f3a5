"""CLIP's pre-training loss (Radford et al., ICML 2021)."""

import torch
from torch import Tensor
from torch.nn import functional as F


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """Mean cross-entropy of finding each image's text, and each text's image, in the batch.

    Args:
        images: [B, d] features; row i belongs to `texts`' row i. Not normalised.
        texts: [B, d].
        scale: scalar factor on the cosines.

    """
    cosines = F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
    logits = scale * cosines
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
