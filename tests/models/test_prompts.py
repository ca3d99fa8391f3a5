import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.backbone import Backbone
from models.prompts import Position, PromptLearner, class_embeddings
from models.templates import caption_templates

from .conftest import small_backbone

BACKBONE = small_backbone()
NAMES = ["dog", "dining table", "fire_hydrant", "hand-made wooden toy train set"]


def plain(learner: PromptLearner, names: list[str], position: Position) -> torch.Tensor:
    """Each prompt alone, padded to the full context length, through the library's own tower."""
    backbone, clip = learner.backbone, learner.backbone.clip
    outputs = []
    for number in range(learner.context.shape[0]):
        for index, name in enumerate(names):
            ids = backbone.tokenize([name.replace("_", " ") + "."])[0]
            end = int(ids.argmax())
            context = learner.context[number]
            context = context[index] if context.dim() == 3 else context
            before = {"end": len(context), "middle": len(context) // 2, "front": 0}[position]
            parts = [
                clip.token_embedding(ids[:1]),
                context[:before],
                clip.token_embedding(ids[1 : end - 1]),
                context[before:],
                clip.token_embedding(ids[end - 1 : end + 1]),
            ]
            prompt = torch.cat(parts)
            padding = clip.token_embedding(ids.new_zeros(backbone.context_length - len(prompt)))
            x = torch.cat([prompt, padding])[None] + clip.positional_embedding
            x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask))
            outputs.append(x[0, len(prompt) - 1] @ clip.text_projection)
    return torch.stack(outputs).reshape(-1, len(names), backbone.dim)


@settings(max_examples=25, deadline=None)
@given(
    contexts=st.integers(1, 8),
    sets=st.integers(1, 2),
    names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=4),
    class_specific=st.booleans(),
    position=st.sampled_from(["end", "middle", "front"]),
)
def test_prompts_and_gradients_are_the_plain_ones(
    contexts: int, sets: int, names: list[str], class_specific: bool, position: Position
) -> None:
    learner = PromptLearner(
        BACKBONE,
        names,
        contexts=contexts,
        sets=sets,
        class_specific=class_specific,
        position=position,
        generator=torch.Generator().manual_seed(contexts),
    ).double()
    fast, slow = learner(), plain(learner, names, position)
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)
    weight = torch.randn(fast.shape, dtype=torch.float64, generator=torch.manual_seed(2))
    (of_fast,) = torch.autograd.grad((fast * weight).sum(), learner.context)
    (of_slow,) = torch.autograd.grad((slow * weight).sum(), learner.context)
    torch.testing.assert_close(of_fast, of_slow, rtol=1e-8, atol=1e-9)


def test_only_the_contexts_are_learned_and_seeded() -> None:
    first, second = (
        PromptLearner(BACKBONE, NAMES, contexts=4, generator=torch.Generator().manual_seed(7))
        for _ in range(2)
    )
    assert list(first.state_dict()) == ["context"]
    assert [name for name, _ in first.named_parameters()] == ["context"]
    assert torch.equal(first.context, second.context)
    assert 0.01 < float(first.context.detach().std()) < 0.03


def test_a_prompt_that_does_not_fit_names_its_class() -> None:
    with pytest.raises(ValueError, match="'dining table'"):
        PromptLearner(BACKBONE, ["dog", "dining table"], contexts=20)


def test_class_embeddings_are_normalised_means(backbone: Backbone) -> None:
    templates = [lambda c: f"a photo of a {c}.", lambda c: f"the {c}."]
    found = class_embeddings(backbone, ["dog", "dining table"], templates)
    for index, name in enumerate(["dog", "dining table"]):
        tokens = backbone.tokenize([f"a photo of a {name}.", f"the {name}."])
        mean = backbone.clip.encode_text(tokens, normalize=True).mean(dim=0)
        torch.testing.assert_close(found[index], mean / mean.norm())


def test_there_are_nine_plain_templates_and_clips_eighty() -> None:
    templates = caption_templates()
    assert templates[:9] == ["a photo of a {}."] * 9
    assert len(templates) == 89
    assert all(template.count("{}") == 1 for template in templates)
