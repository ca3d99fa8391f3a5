"""The training step and the benchmark's plain way give the same loss and gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from benchmarks import plain
from benchmarks.captions import made_up, made_up_classes
from models.backbone import Backbone
from models.choices import Position
from models.examples import CaptionBatch
from models.method import Setup
from models.methods.tai_dpt import PromptSettings, PromptTuning
from models.scoring import PackedTokens
from tasks.backbone.loading import load_backbone
from tests.models.conftest import small_backbone

SMALL = small_backbone()


def compare(
    backbone: Backbone,
    learner: PromptTuning,
    names: list[str],
    texts: list[str],
    labels: torch.Tensor,
    *,
    position: Position = "end",
    is_projected: bool = False,
) -> tuple[float, float, float]:
    """Both losses, and the distance of the gradients relative to the plain one's length."""
    tokens = backbone.tokenize(texts)
    lengths = backbone.lengths(tokens)
    with torch.no_grad():
        hidden = backbone.encode_text(tokens[:, : int(lengths.max())])
    inside = torch.arange(hidden.shape[1]) < lengths[:, None]
    projected = backbone.project(hidden)
    at_end = projected[torch.arange(len(texts)), lengths - 1]
    packed = PackedTokens(
        hidden=(projected if is_projected else hidden)[inside],
        offsets=torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)]),
        norms=projected[inside].norm(dim=-1),
        projection=None if is_projected else backbone.projection,
    )
    batch = CaptionBatch(F.normalize(at_end, dim=-1), packed, labels)
    loss = learner.loss(batch, torch.Generator())
    loss.backward()

    contexts = learner.prompts.context
    context = contexts.detach().clone().requires_grad_()
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
        position=position,
    )
    expected.backward()
    assert contexts.grad is not None
    assert context.grad is not None
    # of classes of one name the terms cancel, and what is left is rounding, 1e-16 of either way
    gap = (contexts.grad - context.grad).norm() / context.grad.norm().clamp(min=1e-6)
    return loss.item(), expected.item(), float(gap)


@pytest.mark.parametrize("model", ["RN50-quickgelu", "ViT-B-32-quickgelu"])
def test_a_full_size_step_is_the_plain_one(model: str) -> None:
    backbone = load_backbone(model, "", seed=0, resolution=None, device="cpu").backbone
    names = made_up_classes(5)
    texts, classes = made_up(6, names)
    labels = torch.tensor([[name in found for name in names] for found in classes])
    learner = PromptTuning(Setup(backbone, tuple(names), seed=1), PromptSettings())
    loss, expected, gap = compare(backbone, learner, names, texts, labels)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert gap < 1e-4


@settings(max_examples=20)
@given(
    contexts=st.integers(1, 8),
    words=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    class_specific=st.booleans(),
    position=st.sampled_from(["end", "middle", "front"]),
    is_projected=st.booleans(),
    data=st.data(),
)
def test_a_small_step_is_the_plain_one(
    contexts: int,
    words: list[int],
    lengths: list[int],
    class_specific: bool,
    position: Position,
    is_projected: bool,
    data: st.DataObject,
) -> None:
    word = st.sampled_from(["red", "dog", "hydrant", "table", "umbrella", "hand-made"])
    names = [" ".join(data.draw(word) for _ in range(count)) for count in words]
    texts = [" ".join(data.draw(word) for _ in range(count)) for count in lengths]
    shown = [[data.draw(st.booleans()) for _ in names] for _ in texts]
    chosen = PromptSettings(contexts=contexts, class_specific=class_specific, position=position)
    learner = PromptTuning(Setup(SMALL, tuple(names), seed=contexts), chosen).double()
    labels = torch.tensor(shown)
    loss, expected, gap = compare(
        SMALL, learner, names, texts, labels, position=position, is_projected=is_projected
    )
    assert loss == pytest.approx(expected, rel=1e-9)
    assert gap < 1e-7
