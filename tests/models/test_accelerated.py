"""Prompts in bf16 and on a GPU, against float32 on the CPU."""

import copy

import pytest
import torch
from torch.nn import functional as F

from models.backbone import Backbone
from models.prompts import PromptLearner

from .conftest import small_backbone

NAMES = ["dog", "dining table", "fire hydrant"]


def encoded(learner: PromptLearner) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts, and the gradient of a weighted sum of them."""
    prompts = learner()
    weight = torch.randn(prompts.shape, generator=torch.manual_seed(2)).to(prompts.device)
    (gradient,) = torch.autograd.grad((prompts * weight).sum(), learner.context)
    return prompts.detach().cpu(), gradient.cpu()


def learner_of(backbone: Backbone) -> PromptLearner:
    generator = torch.Generator().manual_seed(0)
    return PromptLearner(backbone, NAMES, contexts=4, generator=generator)


def single() -> Backbone:
    double = small_backbone()
    return Backbone(double.clip.float(), double.tokenize)


def test_bf16_prompts_point_the_same_way() -> None:
    backbone = single()
    exact, gradient = encoded(learner_of(backbone))
    backbone.use_bf16()
    learner = learner_of(backbone)
    rounded, of_rounded = encoded(learner)
    assert rounded.dtype == of_rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    assert F.cosine_similarity(rounded, exact, dim=-1).min() > 0.999
    assert F.cosine_similarity(of_rounded.flatten(), gradient.flatten(), dim=0) > 0.99


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_cpus_prompts() -> None:
    backbone = single()
    exact, gradient = encoded(learner_of(backbone))
    on_gpu = Backbone(copy.deepcopy(backbone.clip).cuda(), backbone.tokenize)
    learner = learner_of(on_gpu)
    prompts, of_prompts = encoded(learner)
    torch.testing.assert_close(prompts, exact, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(of_prompts, gradient, rtol=1e-4, atol=1e-4)
    on_gpu.use_bf16()
    rounded, _ = encoded(learner)
    assert F.cosine_similarity(rounded, exact, dim=-1).min() > 0.999
