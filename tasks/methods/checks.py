"""Checks that every method must pass, ours and others': `check_method(Mine)` in a test of its own.

Each check makes a small random CLIP and a few examples, so it takes a second or two and needs no
file and no network. A check that fails says in one sentence what a method must do.
"""

import doctest
import inspect
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final, get_args

import open_clip
import torch
from open_clip.model import CLIP
from torch import Tensor
from torch.nn import functional as F

from models.backbone import Backbone, ImageFeatures
from models.captions import encode_captions
from models.examples import CaptionBatch, ImageBatch, PhraseBatch, SentenceBatch
from models.method import Learner, LearnsFrom, Method, Scores, Setup, State, TrainedSettings
from models.prompts import class_embeddings
from models.scoring import PackedTokens, global_scores
from tasks.methods.state import read_state, write_state
from tasks.methods.trainer import train

NAMES: Final = ("dog", "fire hydrant", "cat", "kite")
TEXTS: Final = (
    "a dog and a cat",
    "two dogs near a fire hydrant in the old town",
    "a kite",
    "a cat looks at a kite",
    "the dog sleeps",
    "a red fire hydrant",
)
SHOWN: Final = ((0, 2), (0, 1), (3,), (2, 3), (0,), (1,))
IMAGES: Final = 12
KAPPA: Final = 10.0
CPU: Final = torch.device("cpu")
Check = Callable[[type[Method]], None]


@dataclass(frozen=True)
class Given:
    """Examples that are there at once, read by batch."""

    whole: Any
    """A `CaptionBatch` or an `ImageBatch` of all of them."""

    def __len__(self) -> int:
        return len(self.whole.labels)

    def batch(self, rows: Tensor, device: torch.device) -> Any:
        """See `models.examples.Examples.batch`."""
        del device
        if isinstance(self.whole, CaptionBatch):
            return _captions_of(self.whole, rows)
        if isinstance(self.whole, PhraseBatch):
            return _phrases_of(self.whole, rows)
        if isinstance(self.whole, SentenceBatch):
            return SentenceBatch(self.whole.features[rows], self.whole.labels[rows])
        return ImageBatch(_rows(self.whole.features, rows), self.whole.labels[rows])


def check_method(method: type[Method]) -> None:
    """All checks, one after the other.

    Raises:
        AssertionError: what the method does not do.

    """
    for check in CHECKS:
        check(method)


def says_what_it_is(method: type[Method]) -> None:
    """Name, one sentence, what it learns from; settings explain themselves and have defaults."""
    assert method.name == method.name.lower().strip(), "a name is in lower case"
    assert " " not in method.name, "a name has hyphens, not spaces"
    assert method.summary, "a method has a summary of one sentence"
    assert method.learns_from in get_args(LearnsFrom)
    for name, field in method.Settings.model_fields.items():
        assert field.description, f"setting {name!r} has no description"
        assert not field.is_required(), f"setting {name!r} has no default"
    if method.is_trained():
        assert issubclass(method.Settings, TrainedSettings), "a trained method has TrainedSettings"


def the_same_seed_gives_the_same_bytes(method: type[Method]) -> None:
    """Fitted twice with a seed, the state's file is the same, whatever was drawn elsewhere."""
    torch.manual_seed(1)
    first = _bytes_of(_fitted(method))
    torch.manual_seed(2)
    assert _bytes_of(_fitted(method)) == first, "the same seed gives another state"


def a_stored_state_scores_the_same(method: type[Method]) -> None:
    """The state written and read again gives the same scores, and is of the shapes it says."""
    chosen, state = _small(method), _fitted(method)
    with tempfile.TemporaryDirectory() as folder:
        write_state(state, {}, Path(folder))
        again = read_state(Path(folder))
    chosen.check_state(again, len(NAMES), _setup().backbone.dim)
    expected = _scores(chosen, state)
    for branch, scores in _scores(chosen, again).items():
        assert scores.equal(expected[branch]), f"{branch} scores change when the state is stored"


def scores_are_whole(method: type[Method]) -> None:
    """`merged` is there, every branch is a finite [B, C] matrix, and images differ."""
    found = _scores(_small(method), _fitted(method))
    assert "merged" in found, "scores have no branch 'merged'"
    for branch, scores in found.items():
        assert scores.shape == (IMAGES, len(NAMES)), f"{branch}: expected [B, C]"
        assert scores.isfinite().all(), f"{branch} scores are not finite"
    assert float(found["merged"].std(dim=0).max()) > 0, "every image scores the same"


def classes_permuted_are_scores_permuted(method: type[Method]) -> None:
    """In another order of classes, with labels likewise, scores are those of before, reordered.

    Of what is trained only the start is looked at: initial contexts of each class's own are drawn
    in the classes' order.
    """
    order = [2, 0, 3, 1]
    setup = replace(_setup(), names=tuple(NAMES[c] for c in order))
    before = _scores(_small(method), _untrained(method, _setup(), _examples(method)))
    examples = _examples(method)
    moved = replace(examples.whole, labels=examples.whole.labels[:, order]) if examples else None
    if isinstance(moved, PhraseBatch):
        moved = replace(moved, named_classes=torch.tensor(order).argsort()[moved.named_classes])
    after = _scores(_small(method), _untrained(method, setup, Given(moved) if moved else None))
    for branch, scores in after.items():
        gap = float((scores - before[branch][:, order]).abs().max())
        size = float(before[branch].abs().max())
        assert gap <= 1e-2 * max(size, 1.0), f"{branch}: classes in another order score otherwise"


def an_image_alone_scores_as_in_a_batch(method: type[Method]) -> None:
    """The scores of an image do not depend on the others that it is scored with."""
    chosen, state = _small(method), _fitted(method)
    whole = _scores(chosen, state)
    for row in range(3):
        alone = chosen.score_images(state, _rows(_images().features, torch.tensor([row])), KAPPA)
        for branch, scores in alone.items():
            torch.testing.assert_close(
                scores[0], whole[branch][row], msg=f"{branch}: an image alone scores otherwise"
            )


def unknown_labels_change_nothing(method: type[Method]) -> None:
    """An image of which no label is known may be left out: the scores stay where they are."""
    if method.learns_from != "labelled images":
        return
    labelled = _images()
    unknown = labelled.labels.clone()
    unknown[:4] = -1
    with_them = Given(ImageBatch(labelled.features, unknown))
    rows = torch.arange(4, IMAGES)
    without = Given(ImageBatch(_rows(labelled.features, rows), unknown[4:]))
    flipped = labelled.labels.clone()
    flipped[:4] = 1 - flipped[:4]
    hidden = Given(ImageBatch(labelled.features, torch.where(unknown < 0, unknown, flipped)))
    first = _bytes_of(_fit(method, _setup(), with_them))
    assert _bytes_of(_fit(method, _setup(), hidden)) == first, "unknown labels were looked at"
    if not method.is_trained():
        before, after = (
            _scores(_small(method), _fit(method, _setup(), each))["merged"]
            for each in (with_them, without)
        )
        order = [scores.argsort(dim=0) for scores in (before, after)]
        assert order[0].equal(order[1]), "images without a known label change the ranking"


def it_goes_on_in_mid_epoch(method: type[Method]) -> None:
    """Stopped before any step and started again, training ends at the same bytes."""
    if not method.is_trained():
        return
    whole = _bytes_of(_fitted(method))
    for stop_at in (2, 4):
        with tempfile.TemporaryDirectory() as folder:
            watched = _Stopping(_examples(method), stop_at)
            try:
                _fit(method, _setup(), watched, Path(folder))
            except _StoppedError:
                pass
            else:
                raise AssertionError("training asked for fewer batches than there are")
            again = _bytes_of(_fit(method, _setup(), _examples(method), Path(folder)))
        assert again == whole, f"a run stopped before batch {stop_at} ends elsewhere"


def gradients_are_finite(method: type[Method]) -> None:
    """The loss is a finite scalar, and every parameter has a finite fp32 gradient."""
    if not method.is_trained():
        return
    examples = _examples(method)
    learner = _prepared(method, _setup(), examples)
    loss = learner.loss(examples.batch(torch.arange(len(examples)), CPU), _setup().generator)
    assert loss.ndim == 0, "the loss is a scalar"
    assert loss.isfinite(), "the loss is not finite"
    loss.backward()
    parameters = dict(learner.named_parameters())
    assert parameters, "a trained method has parameters"
    for name, parameter in parameters.items():
        assert parameter.dtype == torch.float32, f"{name} is not float32"
        assert parameter.grad is not None, f"{name} has no gradient"
        assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"


def it_touches_what_it_needs_alone(method: type[Method]) -> None:
    """Without `dense features` in `needs` those may be anything; likewise the text tower."""
    chosen, state = _small(method), _fitted(method)
    if "dense features" not in method.needs:
        features = _images().features
        spoiled = replace(features, dense=torch.full_like(features.dense, float("nan")))
        for branch, scores in chosen.score_images(state, spoiled, KAPPA).items():
            assert scores.isfinite().all(), f"{branch} looks at dense features; say so in `needs`"
    if not method.needs & {"text tower", "causal text tower"}:
        setup = replace(_setup(), backbone=_without_text())
        _fit(method, setup, _examples(method))


def captions_are_scored_as_they_are_labelled(method: type[Method]) -> None:
    """Where captions have scores, they are finite [B, C] matrices with the branch `merged`."""
    chosen, state = _small(method), _fitted(method)
    found = chosen.score_captions(state, _examples_of_captions(method))
    if found is None:
        return
    assert "merged" in found, "scores of captions have no branch 'merged'"
    for branch, scores in found.items():
        assert scores.shape == (len(TEXTS), len(NAMES)), f"{branch} of captions: expected [B, C]"
        assert scores.isfinite().all(), f"{branch} scores of captions are not finite"


def its_example_runs(method: type[Method]) -> None:
    """The class's docstring has an example of three lines or more, and it does what it shows.

    The example has `setup`, `captions`, `phrases`, `sentences`, `images` (batches), `labelled` and
    `sentence_examples` (examples) to work with, and for a method that builds on others `parts` and
    `others`, the setup with their states.
    """
    text = inspect.getdoc(method) or ""
    given = {
        **vars(inspect.getmodule(method)),
        "setup": _setup(),
        "parts": _parts(),
        "others": _with_states(_setup(), _parts()),
        "captions": _captions(),
        "phrases": _phrases(),
        "sentences": _sentences(),
        "sentence_examples": Given(_sentences()),
        "images": _images(),
        "labelled": Given(_images()),
    }
    test = doctest.DocTestParser().get_doctest(text, given, method.__name__, None, 0)
    assert len(test.examples) >= 3, "the docstring needs an example of three lines"
    told: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(test, out=told.append)
    assert not result.failed, "".join(told)


CHECKS: Final[tuple[Check, ...]] = (
    says_what_it_is,
    the_same_seed_gives_the_same_bytes,
    a_stored_state_scores_the_same,
    scores_are_whole,
    classes_permuted_are_scores_permuted,
    an_image_alone_scores_as_in_a_batch,
    unknown_labels_change_nothing,
    it_goes_on_in_mid_epoch,
    gradients_are_finite,
    it_touches_what_it_needs_alone,
    captions_are_scored_as_they_are_labelled,
    its_example_runs,
)


class _StoppedError(Exception):
    """Training was stopped on purpose."""


class _Stopping:
    """Examples that stop the training when batch number `stop_at`, from 1, is asked for."""

    def __init__(self, examples: Given, stop_at: int) -> None:
        self._examples, self._stop_at, self._calls = examples, stop_at, 0

    def __len__(self) -> int:
        return len(self._examples)

    def batch(self, rows: Tensor, device: torch.device) -> Any:
        """See `models.examples.Examples.batch`."""
        self._calls += 1
        if self._calls == self._stop_at:
            raise _StoppedError
        return self._examples.batch(rows, device)


def _small(method: type[Method]) -> Method:
    """The method with settings for a handful of examples."""
    values: dict[str, Any] = {}
    if method.is_trained():
        values = {"epochs": 2, "batch": 2}
    parts = _parts() if method.learns_from == "other methods" else ()
    return method(method.Settings.model_validate(values), parts)


def _fitted(method: type[Method]) -> State:
    return _fit(method, _setup(), _examples(method))


def _fit(method: type[Method], setup: Setup, examples: Any, folder: Path | None = None) -> State:
    """The state after a whole fit; checkpoints after each step lie in `folder`."""
    chosen = _small(method)
    setup = _with_states(setup, chosen.parts)
    if not method.is_trained():
        return chosen.fit(setup, examples)
    with tempfile.TemporaryDirectory() as elsewhere:
        state, _, _ = train(
            chosen.learner(setup),
            examples,
            torch.arange(len(examples)),
            folder or Path(elsewhere),
            seed=setup.seed,
            device=CPU,
            on_epoch=lambda epoch, figures: None,
            checkpoint_every_s=-1.0,
        )
    return state


def _untrained(method: type[Method], setup: Setup, examples: Any) -> State:
    """The state before the first step of training, or that of a fit in closed form."""
    if method.is_trained():
        return _prepared(method, setup, examples).state()
    return _fit(method, setup, examples)


def _prepared(method: type[Method], setup: Setup, examples: Any) -> Learner:
    """A learner that has looked at its examples, as the trainer has it before the first step."""
    chosen = _small(method)
    learner = chosen.learner(_with_states(setup, chosen.parts))
    learner.prepare(examples, torch.arange(len(examples)), CPU)
    return learner


def _examples(method: type[Method]) -> Any:
    if method.learns_from == "captions":
        return Given(_examples_of_captions(method))
    images = _images()
    if method.learns_from == "other methods":
        return Given(ImageBatch(images.features, torch.full_like(images.labels, -1)))
    return Given(images) if method.learns_from == "labelled images" else None


class _Words(Method):
    """A part for methods that build on others: cosines with one sentence per class."""

    name = "words"
    summary = "one sentence per class"
    learns_from = "nothing"
    sentence = "a {}"

    def fit(self, setup: Setup, examples: Any) -> State:
        """The sentences' embeddings, by the suite's own text tower."""
        del examples
        sentences = [self.sentence.format]
        return {"classes": class_embeddings(_setup().backbone, setup.names, sentences)}

    def score_images(self, state: State, features: ImageFeatures, kappa: float) -> Scores:
        """Cosines."""
        del kappa
        return {"merged": global_scores(features.pooled, state["classes"])}


class _Pictures(_Words):
    """Another part."""

    name = "pictures"
    sentence = "a blurred picture of one {}"


def _parts() -> tuple[Method, ...]:
    """What a method that builds on others is given here."""
    return (_Words(), _Pictures())


def _with_states(setup: Setup, parts: Sequence[Method]) -> Setup:
    """The setup with the states of those methods."""
    return replace(setup, states={part.name: part.fit(setup, None) for part in parts})


def _scores(method: Method, state: State) -> dict[str, Tensor]:
    return method.score_images(state, _images().features, KAPPA)


def _bytes_of(state: State) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write_state(state, {}, Path(folder))
        return b"".join(path.read_bytes() for path in sorted(Path(folder).iterdir()))


@cache
def _setup() -> Setup:
    """A random CLIP with a ResNet, as small as open_clip makes them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        clip = CLIP(
            embed_dim=48,
            vision_cfg={"image_size": 64, "layers": (1, 1, 1, 1), "width": 8, "patch_size": None},
            text_cfg={
                "context_length": 32,
                "vocab_size": 49408,
                "width": 32,
                "heads": 4,
                "layers": 2,
            },
            quick_gelu=True,
        )
    return Setup(Backbone(clip, open_clip.SimpleTokenizer(context_length=32)), NAMES, seed=3)


def _without_text() -> Any:
    """The backbone without a text tower: to ask for it is a fault of the method's `needs`."""
    whole = _setup().backbone

    class ImagesAlone:
        device, dim, logit_scale = whole.device, whole.dim, whole.logit_scale
        encode_images = whole.encode_images

        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"asks for the text tower's {name}; say so in `needs`")

    return ImagesAlone()


@cache
def _captions() -> CaptionBatch:
    backbone = _setup().backbone
    tokens = backbone.tokenize(TEXTS)
    lengths = backbone.lengths(tokens)
    ids = torch.cat([row[:length] for row, length in zip(tokens, lengths.tolist(), strict=True)])
    with torch.no_grad():
        hidden, projected = encode_captions(backbone, ids, lengths)
    ends = lengths.cumsum(0)
    packed = PackedTokens(hidden, F.pad(ends, (1, 0)), projected.norm(dim=-1), backbone.projection)
    labels = torch.zeros(len(TEXTS), len(NAMES), dtype=torch.bool)
    for row, classes in enumerate(SHOWN):
        labels[row, list(classes)] = True
    return CaptionBatch(F.normalize(projected[ends - 1], dim=-1), packed, labels)


def _examples_of_captions(method: type[Method]) -> Any:
    if method.reads == "sentences":
        return _sentences()
    return _phrases() if method.reads == "phrases" else _captions()


@cache
def _phrases() -> PhraseBatch:
    """Each class's name as a phrase of its own, and the whole caption as another."""
    backbone, captions = _setup().backbone, _captions()
    names = class_embeddings(backbone, NAMES, ["a {}".format])
    parts = [
        torch.cat([names[list(classes)], captions.global_[row][None]])
        for row, classes in enumerate(SHOWN)
    ]
    lengths = torch.tensor([len(part) for part in parts])
    offsets = F.pad(lengths.cumsum(0), (1, 0))
    named = [
        int(offsets[row]) + place
        for row, of_row in enumerate(SHOWN)
        for place in range(len(of_row))
    ]
    classes = [label for of_row in SHOWN for label in of_row]
    return PhraseBatch(
        torch.cat(parts), offsets, torch.tensor(named), torch.tensor(classes), captions.labels
    )


def _sentences() -> SentenceBatch:
    captions = _captions()
    return SentenceBatch(captions.global_, captions.labels)


def _phrases_of(whole: PhraseBatch, rows: Tensor) -> PhraseBatch:
    offsets = whole.offsets
    spans = [torch.arange(int(offsets[row]), int(offsets[row + 1])) for row in rows]
    inside = torch.cat(spans)
    kept = F.pad(torch.tensor([len(span) for span in spans]).cumsum(0), (1, 0))
    pairs = [
        (place, int(label))
        for place, old in enumerate(inside.tolist())
        for name, label in zip(whole.named, whole.named_classes, strict=True)
        if int(name) == old
    ]
    named, classes = torch.tensor(pairs).reshape(-1, 2).unbind(dim=1)
    return PhraseBatch(whole.features[inside], kept, named, classes, whole.labels[rows])


def _captions_of(whole: CaptionBatch, rows: Tensor) -> CaptionBatch:
    offsets = whole.tokens.offsets
    spans = [torch.arange(int(offsets[row]), int(offsets[row + 1])) for row in rows]
    lengths = torch.tensor([len(span) for span in spans])
    inside = torch.cat(spans)
    packed = PackedTokens(
        whole.tokens.hidden[inside],
        F.pad(lengths.cumsum(0), (1, 0)),
        whole.tokens.norms[inside],
        whole.tokens.projection,
    )
    return CaptionBatch(whole.global_[rows], packed, whole.labels[rows])


@cache
def _images() -> ImageBatch:
    """Random pictures through the tower; labels by a rule on their features, so learnable."""
    pixels = torch.rand(IMAGES, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        features = _setup().backbone.encode_images(pixels)
    whole = ImageFeatures(
        features.pooled.clone(), features.pooled_plain.clone(), features.dense.clone()
    )
    values = whole.pooled[:, : len(NAMES)]
    return ImageBatch(whole, (values > values.median(dim=0).values).to(torch.int8))


def _rows(features: ImageFeatures, rows: Tensor) -> ImageFeatures:
    return ImageFeatures(features.pooled[rows], features.pooled_plain[rows], features.dense[rows])


def each_check(methods: Sequence[type[Method]]) -> Iterator[tuple[type[Method], Check]]:
    """Every check of every method, for a test to be parametrised by."""
    return ((method, check) for method in methods for check in CHECKS)
