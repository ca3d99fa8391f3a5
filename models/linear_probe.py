"""A linear probe learns from true labels: for scale, what labelled images would have taught."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class LinearProbe:
    """One logistic regression per class."""

    weight: Tensor
    """[C, 2d]"""
    bias: Tensor
    """[C]"""

    def scores(self, pooled: Tensor, dense: Tensor) -> Tensor:
        """Logits [B, C] of images with global features [B, d] and dense ones [B, N, d]."""
        return F.linear(probe_inputs(pooled, dense), self.weight, self.bias)


def probe_inputs(pooled: Tensor, dense: Tensor) -> Tensor:
    """[B, 2d]: the global feature, and the greatest of each dense dimension, all normalised."""
    highest = F.normalize(dense, dim=-1).amax(dim=1)
    return torch.cat([F.normalize(pooled, dim=-1), highest], dim=-1)


def fit_linear_probe(
    pooled: Tensor,
    dense: Tensor,
    labels: Tensor,
    *,
    weight_decay: float = 1e-5,
    iterations: int = 200,
) -> LinearProbe:
    """Logistic regressions of labels [N, C] on frozen features [N, d] and [N, P, d], by L-BFGS.

    Minimises the mean over images of the summed cross-entropies, plus `weight_decay` / 2 times the
    squared weights (biases are free).
    """
    inputs, targets = probe_inputs(pooled, dense), labels.to(pooled.dtype)
    weight = torch.zeros(labels.shape[1], inputs.shape[1], requires_grad=True)
    bias = torch.zeros(labels.shape[1], requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [weight, bias], max_iter=iterations, history_size=20, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        logits = F.linear(inputs, weight, bias)
        errors = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(inputs)
        total = errors + weight_decay / 2 * weight.square().sum()
        total.backward()
        return total

    optimiser.step(loss)
    return LinearProbe(weight.detach(), bias.detach())
