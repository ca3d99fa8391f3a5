"""A frozen causal layer as two functions whose backward passes are written out.

Its weights never learn, so nothing is kept or computed for them, and a step through it is a third
of the operations that autograd would record: with few prompts it is their number that takes time.
The residual stream keeps its own type; matrix products are in that of the weights.
"""

from typing import Any, Final

import torch
from open_clip.transformer import LayerScale, QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

QUICK: Final = 1.702
"""QuickGELU is x sigmoid(1.702 x) = silu(1.702 x) / 1.702; both factors ride on products."""


def attended(block: ResidualAttentionBlock, hidden: Tensor, bias: Tensor) -> Tensor:
    """Attention's weighted values [..., R, w] before their projection, in the weights' type.

    Args:
        block: the layer.
        hidden: [..., R, w] raw hidden states; rows of one sample see each other alone.
        bias: added to scaled scores [..., heads, R, R]: 0, or -inf where a row must not look.

    """
    found: Tensor = _Attended.apply(hidden, bias, block)
    return found


def rest_of_layer(block: ResidualAttentionBlock, hidden: Tensor, weighted: Tensor) -> Tensor:
    """The layer's output [..., w] from raw hidden states and attention's weighted values."""
    found: Tensor = _Rest.apply(hidden, weighted, block)
    return found


def joint_projections(block: ResidualAttentionBlock, hidden: Tensor) -> Tensor:
    """Queries, keys and values [..., 3 w] of raw hidden states, in the weights' type."""
    joint, _ = _joint(block, hidden)
    return joint


def _joint(block: ResidualAttentionBlock, hidden: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    normed, mean, deviation = _normed(block.ln_1, hidden)
    weight = block.attn.in_proj_weight
    return F.linear(normed.to(weight.dtype), weight, block.attn.in_proj_bias), (mean, deviation)


class _Attended(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, bias: Tensor, block: ResidualAttentionBlock) -> Tensor:
        joint, moments = _joint(block, hidden)
        parts = joint.unflatten(-1, (3, block.attn.num_heads, -1)).movedim(-3, 0).transpose(-2, -3)
        query, key, value = parts.contiguous()
        scores = query @ key.mT
        weights = torch.add(bias, scores, alpha=query.shape[-1] ** -0.5).softmax(dim=-1)
        ctx.save_for_backward(hidden, *moments, query, key, value, weights)
        ctx.block = block
        found: Tensor = (weights @ value).transpose(-2, -3).flatten(-2)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden, mean, deviation, query, key, value, weights = ctx.saved_tensors
        attention = ctx.block.attn
        of_values = gradient.unflatten(-1, (attention.num_heads, -1)).transpose(-2, -3)
        of_weights = of_values @ value.mT
        of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        of_scores = of_scores * query.shape[-1] ** -0.5
        # [..., heads, 3, R, w / heads]
        parts = torch.stack((of_scores @ key, of_scores.mT @ query, weights.mT @ of_values), dim=-3)
        of_joint = parts.transpose(-2, -4).flatten(-3)
        of_normed = of_joint @ attention.in_proj_weight
        return _norm_backward(ctx.block.ln_1, of_normed, hidden, mean, deviation), None, None


class _Rest(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weighted: Tensor, block: ResidualAttentionBlock
    ) -> Tensor:
        mlp: Any = block.mlp
        hidden = hidden + _scaled(block.ls_1, block.attn.out_proj(weighted))
        normed, mean, deviation = _normed(block.ln_2, hidden)
        weight, bias = mlp.c_fc.weight, mlp.c_fc.bias
        rows = normed.to(weight.dtype).flatten(0, -2)
        if isinstance(mlp.gelu, QuickGELU):
            inner = torch.addmm(bias, rows, weight.T, beta=QUICK, alpha=QUICK)
            outer = F.linear(F.silu(inner), mlp.c_proj.weight)
            outer = torch.add(mlp.c_proj.bias, outer, alpha=1 / QUICK)
        else:
            inner = F.linear(rows, weight, bias)
            outer = mlp.c_proj(mlp.gelu(inner))
        ctx.save_for_backward(hidden, mean, deviation, inner)
        ctx.block = block
        return hidden + _scaled(block.ls_2, outer.view(hidden.shape))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden, mean, deviation, inner = ctx.saved_tensors
        block: ResidualAttentionBlock = ctx.block
        mlp: Any = block.mlp
        projection, out = mlp.c_proj.weight, block.attn.out_proj.weight
        of_outer = _scaled(block.ls_2, gradient).to(projection.dtype).flatten(0, -2)
        of_active = of_outer @ projection
        if isinstance(mlp.gelu, QuickGELU):
            # the two factors cancel
            of_inner = torch.ops.aten.silu_backward(of_active, inner)
        else:
            with torch.enable_grad():
                inner = inner.detach().requires_grad_()
                (of_inner,) = torch.autograd.grad(mlp.gelu(inner), inner, of_active)
        of_normed = (of_inner @ mlp.c_fc.weight).view(hidden.shape)
        of_hidden = gradient + _norm_backward(block.ln_2, of_normed, hidden, mean, deviation)
        return of_hidden, _scaled(block.ls_1, of_hidden).to(out.dtype) @ out, None


def _scaled(scale: nn.Module, values: Tensor) -> Tensor:
    """What a LayerScale (or nothing) makes of values, and of gradients."""
    return values * scale.gamma if isinstance(scale, LayerScale) else values


def _normed(norm: nn.LayerNorm, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised rows, and each one's mean and inverse deviation."""
    return torch.native_layer_norm(hidden, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def _norm_backward(
    norm: nn.LayerNorm, gradient: Tensor, hidden: Tensor, mean: Tensor, deviation: Tensor
) -> Tensor:
    of_hidden: Tensor = torch.ops.aten.native_layer_norm_backward(
        gradient.to(hidden.dtype),
        hidden,
        norm.normalized_shape,
        mean,
        deviation,
        norm.weight,
        norm.bias,
        [True, False, False],
    )[0]
    return of_hidden
