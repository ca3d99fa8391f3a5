"""The benchmark's plain way and the product's give the same loss and gradients."""

import pytest
import torch

from benchmarks import plain
from benchmarks.captions import made_up, made_up_classes
from models.losses import loss_on_cosines
from models.prompts import PromptLearner
from models.scoring import PackedTokens
from models.tai_dpt import CaptionBatch, TaIDPT
from tasks.backbone import load_backbone


@pytest.mark.parametrize("model", ["RN50-quickgelu", "ViT-B-32-quickgelu"])
def test_a_full_size_step_is_the_plain_one(model: str) -> None:
    backbone = load_backbone(model, "", seed=0, resolution=None, device="cpu").backbone
    names = made_up_classes(5)
    texts, classes = made_up(6, names)
    labels = torch.tensor([[name in found for name in names] for found in classes])
    learner = PromptLearner(backbone, names, generator=torch.Generator().manual_seed(1))
    tokens = backbone.tokenize(texts)
    lengths = backbone.lengths(tokens)
    with torch.no_grad():
        hidden = backbone.encode_text(tokens[:, : int(lengths.max())])
    inside = torch.arange(hidden.shape[1]) < lengths[:, None]
    projected = backbone.project(hidden)
    at_end = projected[torch.arange(len(texts)), lengths - 1]
    packed = PackedTokens(
        hidden=hidden[inside],
        offsets=torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)]),
        norms=projected[inside].norm(dim=-1),
    )
    batch = CaptionBatch(torch.nn.functional.normalize(at_end, dim=-1), packed, labels)
    loss_of = loss_on_cosines("ranking", margin=1.0, scale=4.0)
    objective = TaIDPT(learner, tokens_are_projected=False, kappa=50.0, loss=loss_of)
    loss = objective(batch)
    loss.backward()

    context = learner.context.detach().clone().requires_grad_()
    expected = plain.loss(
        backbone.clip,
        backbone.tokenize,
        names,
        context,
        tokens,
        labels,
        kappa=50.0,
        margin=1.0,
        scale=4.0,
    )
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    gap = (learner.context.grad - context.grad).norm() / context.grad.norm()
    assert gap < 1e-4
