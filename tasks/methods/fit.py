"""Fit stage: a method learns from captions, labelled images, other methods, or from nothing.

Methods that inherit how they are fitted (TaI from TaI-DPT) share one stage.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prefect import task
from prefect.cache_policies import NO_CACHE

from models.lazily import lazily
from models.method import Method, Setup
from tasks.backbone.devices import device_of
from tasks.backbone.loading import identity_of, load
from tasks.captions.choose import templates_in
from tasks.captions.features import open_captions
from tasks.captions.paired import read_pairs
from tasks.captions.phrases import CaptionPhrases
from tasks.captions.sentences import CaptionSentences
from tasks.errors import InputError
from tasks.images.features import open_features
from tasks.images.image_sets import ENTRIES
from tasks.images.labelled import LabelledImages
from tasks.methods.needs import check_tower
from tasks.methods.state import read_state, write_state
from tasks.methods.trainer import OnEpoch, finish, train
from tasks.methods.warm import begin_at, last_fit
from tasks.methods.warm import remember as remember_fit
from tasks.workspace import Result, Stage, canonical, digests_of, recipe_of, run_stage, write_whole

with lazily():
    import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from models.examples import Examples
    from models.method import Reads
    from tasks.labels.vocabulary import Vocabulary
    from tasks.profile import Profile
    from tasks.settings import CaptionChoice

HISTORY: Final = "history.json"


@dataclass(frozen=True)
class Lesson:
    """The stages that a method learns from; none of them where it learns from nothing."""

    choice: Stage | None = None
    """Chosen captions,"""
    features: tuple[Stage, ...] = ()
    """their features by partition; without any they are encoded anew for each step;"""
    phrases: tuple[Stage, ...] = ()
    """or the features of their phrases;"""
    sentences: tuple[Stage, ...] = ()
    """or one vector for each caption."""
    listed: Stage | None = None
    """What labelled images show,"""
    images: Stage | None = None
    """and their features; or, without labels, images that show how other methods score,"""
    parts: Mapping[str, Stage] = field(default_factory=dict)
    """and those methods' states."""
    crops: tuple[Stage, ...] = ()
    """Features of random crops of the labelled images."""
    pairs: Stage | None = None
    """Moments of captions and images that belong together."""
    kappa: float = 40.0
    """Local softmax's scale on the images."""

    @classmethod
    def of_captions(cls, choice: Stage, reads: Reads, encoded: Sequence[Stage]) -> Lesson:
        """Chosen captions and what a method reads of them, by partition."""
        stages = tuple(encoded)
        if reads == "phrases":
            return cls(choice, phrases=stages)
        return cls(choice, sentences=stages) if reads == "sentences" else cls(choice, stages)

    @property
    def encoded(self) -> tuple[Stage, ...]:
        """The captions' features, whatever they are of."""
        return self.features or self.phrases or self.sentences

    @property
    def stages(self) -> list[Stage]:
        """All of them."""
        images = (self.listed, self.images, *self.crops, self.pairs)
        found = (self.choice, *self.encoded, *images, *self.parts.values())
        return [stage for stage in found if stage]


@task(name="fit", cache_policy=NO_CACHE, task_run_name="fit {name}")
def fit_method(
    profile: Profile, vocabulary: Vocabulary, name: str, lesson: Lesson, on_epoch: OnEpoch
) -> Stage:
    """A method's state; `on_epoch` hears of each epoch of a trained one once."""
    method = profile.method(name)
    fitter = _fitter(method)
    start, remember = _warm_start(profile, method, digests_of(lesson.stages))
    if start:
        epochs = {"epochs": profile.refresh.warm_epochs}
        method = type(method)(method.settings.model_copy(update=epochs), method.parts)

    def work(out: Path) -> Result:
        loaded = load(profile)
        check_tower(type(method), profile.backbone.model, loaded.backbone.why_not_causal)
        states = {part: read_state(stage.folder) for part, stage in lesson.parts.items()}
        setup = Setup(
            loaded.backbone,
            vocabulary.prompt_names,
            profile.seed,
            states,
            lesson.kappa,
            read_pairs(lesson.pairs) if lesson.pairs else None,
        )
        examples, rows, counts = _examples(profile, vocabulary, method, lesson)
        card = {
            "method": fitter.name,
            **method.described(),
            "backbone": profile.backbone.model_dump(),
            "random_weights": loaded.random_weights,
            "seed": profile.seed,
            "learned_from": {
                stage.name: stage.digest
                for stage in (lesson.choice, lesson.listed, lesson.pairs)
                if stage
            },
            "counts": counts,
            "classes": list(vocabulary.classes),
        }
        if not method.is_trained():
            write_state(method.fit(setup, examples), card, out)
            return Result(counts, {})
        learner = method.learner(setup)
        if start:
            begin_at(learner, start, vocabulary.classes)
        state, history, figures = train(
            learner,
            examples,
            rows,
            out,
            seed=profile.seed,
            device=loaded.backbone.device,
            on_epoch=on_epoch,
        )
        write_state(state, card, out)
        write_whole(out / HISTORY, json.dumps(history, indent=2) + "\n")
        finish(out)
        return Result(counts, figures)

    recipe = recipe_of(
        "fit",
        __name__,
        fitter.__module__,
        *method.modules()[1:],
        inputs={
            "lesson": digests_of(lesson.stages),
            "vocabulary": vocabulary.digest,
            "backbone": identity_of(profile),
            **({"start": start.digest} if start else {}),
        },
        parameters={
            "method": fitter.name,
            **method.described(),
            "kappa": lesson.kappa,
            "seed": profile.seed,
            "device": device_of(profile),
            **(_choice(profile.captions) if method.learns_from == "captions" else {}),
        },
    )
    stage = run_stage(recipe, work, resumable=True)
    if not stage.fresh:
        for epoch, figures in enumerate(history_of(stage)):
            on_epoch(epoch, figures)
    remember(stage)
    return stage


def _warm_start(
    profile: Profile, method: Method, lesson: str
) -> tuple[Stage | None, Callable[[Stage], None]]:
    """The fit that a new one begins at, if it does, and what writes a finished one down."""
    if profile.refresh.warm_epochs is None or not method.starts_warm:
        return None, lambda _: None
    described = {**method.described(), "seed": profile.seed, "backbone": identity_of(profile)}
    terms = hashlib.sha256(canonical(described)).hexdigest()
    start = last_fit(profile.name, method.name, terms, lesson)
    return start, lambda fitted: remember_fit(
        profile.name, method.name, terms, lesson, fitted, start
    )


def history_of(fitted: Stage) -> list[dict[str, float]]:
    """Figures of each epoch; none of a method that is fitted in closed form."""
    path = fitted.file(HISTORY)
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else []


def split_captions(
    captions: int, templates: int, choice: CaptionChoice, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows to learn from and rows held out, of encoded captions that end with some templates.

    Templates are always learned from. Fewer captions are a subset of more, by seed.
    """
    order = torch.randperm(captions - templates, generator=torch.Generator().manual_seed(seed))
    held_out, left = order.tensor_split([round(choice.held_out * len(order))])
    chosen = torch.cat([left[: choice.most], torch.arange(len(order), captions)])
    return chosen.sort().values, held_out.sort().values


def open_lesson(profile: Profile, vocabulary: Vocabulary, lesson: Lesson) -> Examples[Any]:
    """The chosen captions, as the method reads them for which the lesson was made."""
    if lesson.choice is None:
        raise ValueError("a lesson without captions")
    if lesson.sentences:
        folders = [stage.folder for stage in lesson.sentences]
        return CaptionSentences(lesson.choice.folder, folders, vocabulary.classes)
    if lesson.phrases:
        folders = [stage.folder for stage in lesson.phrases]
        return CaptionPhrases(lesson.choice.folder, folders, vocabulary.classes)
    return open_captions(
        lesson.choice.folder,
        [stage.folder for stage in lesson.features],
        vocabulary.classes,
        load(profile).backbone,
        profile.captions.dtype,
    )


def _fitter(method: Method) -> type[Method]:
    """The class that says how the method is fitted."""
    return method.owner("learner" if method.is_trained() else "fit")


def _choice(choice: CaptionChoice) -> dict[str, Any]:
    return {"most": choice.most, "held_out": choice.held_out, "dtype": choice.dtype}


def _examples(
    profile: Profile, vocabulary: Vocabulary, method: Method, lesson: Lesson
) -> tuple[Any, torch.Tensor, dict[str, int]]:
    """What the method learns from, which rows of it, and counts."""
    if method.learns_from == "captions" and lesson.choice:
        captions = open_lesson(profile, vocabulary, lesson)
        templates = templates_in(lesson.choice)
        rows, held_out = split_captions(len(captions), templates, profile.captions, profile.seed)
        return captions, rows, {"captions": len(rows), "captions/held_out": len(held_out)}
    if method.learns_from == "labelled images" and lesson.listed and lesson.images:
        entries = lesson.listed.file(ENTRIES)
        features = open_features(lesson.images)
        crops = [open_features(stage) for stage in lesson.crops]
        images = LabelledImages(entries, features, vocabulary.classes, crops)
        labels = int((images.labels == 1).sum())
        if not labels:
            raise InputError(
                f"no labelled image shows any class of vocabulary '{vocabulary.name}'; "
                f"{method.name} has nothing to learn from"
            )
        return images, torch.arange(len(images)), {"images": len(images), "labels": labels}
    if method.learns_from == "other methods" and lesson.listed and lesson.images:
        features = open_features(lesson.images)
        images = LabelledImages(lesson.listed.file(ENTRIES), features, vocabulary.classes)
        images.labels.fill_(-1)
        return images, torch.arange(len(images)), {"images/reference": len(images)}
    return None, torch.arange(0), {}
