"""CoOp, CoCoOp and DualCoOp against plain loops in float64, and whole prompts padded to the end."""

import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from benchmarks import plain
from models.backbone import Backbone, ImageFeatures
from models.examples import ImageBatch
from models.losses import CosineLoss, asymmetric_loss, bce_loss, focused_loss, ranking_loss
from models.method import Setup
from models.methods.cocoop import CoCoOp, ConditionalTuning, k_means
from models.methods.coop import ContextTuning, CoOp
from models.methods.dualcoop import DualCoOp, DualTuning, dual_logits
from models.prompts import PromptLearner
from tasks.methods.state import read_state, write_state
from tests.models.conftest import small_backbone

NAMES = ("dog", "dining table", "kite")
TOWERS = [
    small_backbone("resnet"),
    small_backbone(quick_gelu=False, ls_init_value=0.5, is_custom=True),
]
LABELS = torch.tensor([[1, 0, -1], [0, 1, 1], [-1, -1, -1], [0, 0, -1]], dtype=torch.int8)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def images(dim: int, places: int = 5) -> ImageBatch:
    pooled, plain_, dense = normal(4, dim), normal(4, dim, seed=1), normal(4, places, dim, seed=2)
    return ImageBatch(ImageFeatures(pooled, plain_, dense), LABELS)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    dot = sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))
    return dot / math.sqrt(sum(x * x for x in a.tolist()) * sum(x * x for x in b.tolist()))


def test_losses_leave_out_what_is_unknown() -> None:
    scores = normal(4, 3)
    ranking, bce, asl, focused, known = 0.0, 0.0, 0.0, 0.0, 0
    for r in range(4):
        for i in range(3):
            label, logit = int(LABELS[r, i]), float(scores[r, i])
            p = 1 / (1 + math.exp(-logit))
            n = min(1 - p + 0.05, 1.0)
            if label == 1:
                bce, known = bce - math.log(p), known + 1
                asl -= (1 - p) * math.log(p)
                focused -= (1 - p) * math.log(max(p, 1e-6))
                for j in range(3):
                    if int(LABELS[r, j]) == 0:
                        ranking += max(0.0, 1 - 4 * logit + 4 * float(scores[r, j]))
            elif label == 0:
                bce, known = bce - math.log(1 - p), known + 1
                asl -= (1 - n) ** 2 * math.log(n)
                focused -= (1 - n) ** 2 * math.log(max(n, 1e-6))
    assert float(ranking_loss(scores, LABELS)) == pytest.approx(ranking / 4)
    assert float(bce_loss(scores, LABELS)) == pytest.approx(bce / known)
    assert float(asymmetric_loss(scores, LABELS)) == pytest.approx(asl / 4)
    assert float(focused_loss(scores, LABELS)) == pytest.approx(focused)


def test_focal_weights_carry_no_gradient() -> None:
    logits = normal(4, 3).requires_grad_()
    focused_loss(logits, LABELS).backward()
    assert logits.grad is not None
    for r in range(4):
        for i in range(3):
            label, p = int(LABELS[r, i]), 1 / (1 + math.exp(-float(logits.detach()[r, i])))
            n = min(1 - p + 0.05, 1.0)
            # of -w log p is -w p' / p, with p' = p (1 - p)
            expected = 0.0
            if label == 1:
                expected = -(1 - p) * (1 - p)
            elif label == 0 and 1 - p + 0.05 < 1:
                expected = (1 - n) ** 2 * p * (1 - p) / n
            assert float(logits.grad[r, i]) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["bce", "asl"])
def test_a_bias_starts_at_the_mean_cosine(name: str) -> None:
    loss = CosineLoss(name, margin=1, scale=4, gain=12.0).double()  # type: ignore[arg-type]
    cosines = normal(4, 3).tanh()
    loss.start(0.25)
    plain_loss = bce_loss if name == "bce" else asymmetric_loss
    assert float(loss(cosines, LABELS)) == pytest.approx(
        float(plain_loss(12 * (cosines - 0.25), LABELS))
    )
    assert {name for name, _ in loss.named_parameters()} == {"gain", "bias"}


def test_contexts_may_start_as_words() -> None:
    backbone = TOWERS[0]
    learner = PromptLearner(backbone, NAMES, sets=1, words="a photo of a").double()
    tokens = backbone.tokenize([f"a photo of a {name}." for name in NAMES])
    hidden = backbone.encode_text(tokens)
    at_end = hidden[torch.arange(len(NAMES)), backbone.lengths(tokens) - 1]
    torch.testing.assert_close(learner()[0], backbone.project(at_end), rtol=1e-9, atol=1e-9)
    own = PromptLearner(backbone, NAMES, sets=1, words="a photo of a", class_specific=True)
    assert own.context.shape == (1, 3, 4, backbone.width)


@pytest.mark.parametrize("backbone", TOWERS, ids=["resnet", "vit"])
def test_coop_is_the_loss_of_cosines_with_plain_prompts(backbone: Backbone) -> None:
    learner = CoOp(CoOp.Settings(contexts=3)).learner(Setup(backbone, NAMES)).double()
    assert isinstance(learner, ContextTuning)
    batch = images(backbone.dim)
    prompts = plain.prompt_features(
        backbone.text, backbone.tokenize, NAMES, learner.prompts.context[0], "end"
    )
    cosines = [[cosine(g, p) for p in prompts] for g in batch.features.pooled]
    expected = ranking_loss(torch.tensor(cosines, dtype=torch.float64), LABELS)
    found = learner.loss(batch, torch.Generator())
    assert float(found) == pytest.approx(float(expected))
    scores = CoOp().score_images(learner.state(), batch.features, 1.0)["merged"]
    torch.testing.assert_close(scores, torch.tensor(cosines, dtype=torch.float64))


@pytest.mark.parametrize("recipe", ["original", "reproduction"])
def test_dualcoop_is_the_published_forward(recipe: str) -> None:
    backbone = TOWERS[0]
    method = DualCoOp(DualCoOp.Settings.model_validate({"recipe": recipe, "contexts": 2}))
    learner = method.learner(Setup(backbone, NAMES)).double()
    assert isinstance(learner, DualTuning)
    # classes that are no longer alike
    learner.prompts.context.data += 0.1 * normal(*learner.prompts.context.shape)
    batch = images(backbone.dim)
    positive, negative = (
        plain.prompt_features(backbone.text, backbone.tokenize, NAMES, context, "end")
        for context in learner.prompts.context
    )
    logits = torch.zeros(4, 3, dtype=torch.float64)
    for b in range(4):
        for c in range(3):
            towards = [cosine(place, positive[c]) for place in batch.features.dense[b]]
            against = [cosine(place, negative[c]) for place in batch.features.dense[b]]
            sharp = 20.0 if recipe == "original" else 20.1
            weights = [math.exp(sharp * each) for each in towards]
            pooled = [
                sum(w * each for w, each in zip(weights, of, strict=True)) / sum(weights)
                for of in (towards, against)
            ]
            # 5 times 20, as the original; one factor in the reproduction
            scale = 100.0 if recipe == "original" else 49.9
            logits[b, c] = scale * pooled[0] - scale * pooled[1]
    state = {name: value.double() for name, value in learner.state().items()}
    torch.testing.assert_close(
        method.score_images(state, batch.features, 1.0)["merged"], logits, rtol=1e-6, atol=1e-6
    )
    factor = 0.03 if recipe == "original" else 1 / 4
    expected = factor * focused_loss(logits, LABELS, least=1e-8)
    assert float(learner.loss(batch, torch.Generator())) == pytest.approx(float(expected), rel=1e-5)
    learned = {name for name, _ in learner.named_parameters()}
    assert ("log_scale" in learned) == (recipe == "reproduction")


def test_recipes_are_named_and_may_be_overruled() -> None:
    assert DualCoOp.Settings.model_validate({"recipe": "reproduction"}).batch == 64
    own = DualCoOp.Settings.model_validate({"recipe": "reproduction", "batch": 7})
    assert (own.batch, own.scale) == (7, 49.9)
    assert DualCoOp.Settings() == DualCoOp.Settings.model_validate({"recipe": "original"})
    # what a card keeps is read as it was
    assert DualCoOp.Settings.model_validate(own.model_dump()) == own


def test_dual_logits_differ_where_the_prompts_do() -> None:
    dense, prompts = normal(2, 4, 6), normal(3, 6)
    one = torch.tensor(1.0, dtype=torch.float64)
    assert dual_logits(dense, prompts, prompts, one, one).abs().max() < 1e-12


def conditional(backbone: Backbone, **settings: object) -> tuple[CoCoOp, ConditionalTuning]:
    method = CoCoOp(CoCoOp.Settings.model_validate(settings))
    learner = method.learner(Setup(backbone, NAMES, seed=2)).double()
    assert isinstance(learner, ConditionalTuning)
    return method, learner


def plain_conditional(
    backbone: Backbone, learner: ConditionalTuning, pooled: torch.Tensor
) -> torch.Tensor:
    """Each image by itself, its prompts padded to the tower's length."""
    rows = []
    for image in F.normalize(pooled, dim=-1):
        hidden = torch.relu(learner.into.weight @ image + learner.into.bias)
        shift = learner.out.weight @ hidden + learner.out.bias
        prompts = plain.prompt_features(
            backbone.text, backbone.tokenize, NAMES, learner.prompts.context[0] + shift, "end"
        )
        rows.append([cosine(image, prompt) for prompt in prompts])
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("backbone", TOWERS, ids=["resnet", "vit"])
def test_cocoop_shifts_every_context_by_the_meta_net(backbone: Backbone) -> None:
    _, learner = conditional(backbone)
    assert learner.into.weight.shape == (backbone.dim // 16, backbone.dim)
    batch = images(backbone.dim)
    cosines = plain_conditional(backbone, learner, batch.features.pooled)
    found = learner.loss(batch, torch.Generator().manual_seed(0))
    assert float(found) == pytest.approx(float(ranking_loss(cosines, LABELS)))


@pytest.mark.parametrize("backbone", TOWERS, ids=["resnet", "vit"])
def test_cocoop_scores_alike_from_its_state_alone(backbone: Backbone, tmp_path: Path) -> None:
    method, learner = conditional(backbone)
    pooled = images(backbone.dim).features.pooled
    write_state(learner.state(), {}, tmp_path)
    state = read_state(tmp_path)
    method.check_state(state, len(NAMES), backbone.dim)
    features = ImageFeatures(pooled, pooled, pooled[:, None]).to("cpu")
    single = {
        name: value.float() if value.is_floating_point() else value for name, value in state.items()
    }
    scores = method.score_images(single, features, 1.0)["merged"].double()
    expected = plain_conditional(backbone, learner, pooled)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)


def test_centres_are_exact_where_each_image_is_one() -> None:
    backbone = TOWERS[0]
    method, learner = conditional(backbone, centres=10)
    batch = images(backbone.dim)

    class Given:
        def batch(self, rows: torch.Tensor, device: torch.device) -> ImageBatch:
            return batch

    learner.prepare(Given(), torch.arange(4), torch.device("cpu"))
    scores = method.score_images(learner.state(), batch.features, 1.0)["merged"]
    expected = plain_conditional(backbone, learner, batch.features.pooled)
    torch.testing.assert_close(scores, expected)


def test_some_classes_that_no_image_shows_are_drawn() -> None:
    backbone = TOWERS[0]
    names = tuple(f"class {letter}" for letter in "abcdefgh")
    method = CoCoOp(CoCoOp.Settings(negatives=2))
    learner = method.learner(Setup(backbone, names)).double()
    features = images(backbone.dim).features
    labels = torch.zeros(4, 8, dtype=torch.int8)
    labels[:, 0] = 1
    losses = {
        round(
            float(learner.loss(ImageBatch(features, labels), torch.Generator().manual_seed(seed))),
            9,
        )
        for seed in range(20)
    }
    # pairs of seven, each with a loss of its own
    assert 5 < len(losses) <= 21


def test_k_means_finds_what_is_apart() -> None:
    middles = F.normalize(normal(3, 8), dim=-1)
    points = F.normalize(middles.repeat(20, 1) + 0.01 * normal(60, 8, seed=1), dim=-1)
    found = [k_means(points, 3, seed) for seed in range(8)]
    # from some start, each middle has its centre
    best = max(float((points @ each.T).amax(dim=1).mean()) for each in found)
    assert best > 0.999
    assert k_means(points[:2], 5, 0).shape == (2, 8)
