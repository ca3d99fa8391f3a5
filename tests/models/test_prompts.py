import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import plain
from models import prompts
from models.backbone import Backbone
from models.choices import Position
from models.prompts import PromptLearner, class_embeddings
from models.templates import caption_templates

from .conftest import small_backbone

TOWERS = [
    small_backbone(),
    # GELU, layer scale, and a text tower that is a module of its own
    small_backbone(quick_gelu=False, ls_init_value=0.5, is_custom=True),
    # no start token, as by mT5's tokenizer: contexts of each class's own leave nothing to share
    small_backbone(starts=0),
]
BACKBONE = TOWERS[0]
# two share their first word, one has four
NAMES = ["dog", "dining table", "dining room", "fire_hydrant", "hand-made wooden toy train set"]


@settings(max_examples=30)
@given(
    tower=st.sampled_from(TOWERS),
    contexts=st.integers(1, 8),
    sets=st.integers(1, 2),
    names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=5),
    class_specific=st.booleans(),
    position=st.sampled_from(["end", "middle", "front"]),
    block=st.sampled_from([1, 9, 128]),
)
def test_prompts_and_gradients_are_the_plain_ones(
    tower: Backbone,
    contexts: int,
    sets: int,
    names: list[str],
    class_specific: bool,
    position: Position,
    block: int,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prompts, "BLOCK", block)
        learner = PromptLearner(
            tower,
            names,
            contexts=contexts,
            sets=sets,
            class_specific=class_specific,
            position=position,
            generator=torch.Generator().manual_seed(contexts),
        ).double()
    spoken = [name.replace("_", " ") for name in names]
    slow = torch.stack(
        [
            plain.prompt_features(tower.text, tower.tokenize, spoken, context, position)
            for context in learner.context
        ]
    )
    fast = learner()
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)
    weight = torch.randn(fast.shape, dtype=torch.float64, generator=torch.manual_seed(2))
    (of_fast,) = torch.autograd.grad((fast * weight).sum(), learner.context)
    (of_slow,) = torch.autograd.grad((slow * weight).sum(), learner.context)
    torch.testing.assert_close(of_fast, of_slow, rtol=1e-8, atol=1e-9)


def test_what_all_prompts_share_is_encoded_once() -> None:
    # [SOS, v1 … v4, dining], then [table, ., EOT] and [room, ., EOT]
    learner = PromptLearner(BACKBONE, ["dining table", "dining room"], contexts=4)
    assert learner._all.positions.tolist() == [[*range(6), 6, 7, 8, 6, 7, 8]]
    own = PromptLearner(BACKBONE, ["dog", "dining table"], contexts=4, class_specific=True)
    assert own._all.positions.tolist() == [[0, *range(1, 8), *range(1, 9)]]


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
