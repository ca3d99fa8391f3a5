"""Rate stage: how often one decides for a class, as the headline's held-out captions tell."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow.compute as pc
from prefect import task
from prefect.cache_policies import NO_CACHE

from models.decisions import decision_rate
from models.lazily import lazily
from models.method import Method
from tasks.backbone.loading import identity_of, load
from tasks.captions.choose import templates_in
from tasks.captions.partitions import read_classes
from tasks.methods.fit import Lesson, open_lesson, split_captions
from tasks.methods.state import read_state
from tasks.workspace import Result, digests_of, recipe_of, run_stage, write_whole

with lazily():
    import torch

if TYPE_CHECKING:
    from models.examples import Examples
    from models.method import State
    from tasks.labels.vocabulary import Vocabulary
    from tasks.profile import Profile
    from tasks.results.outcome import Outcome
    from tasks.workspace import Stage

RATE: Final = "decision_rate"
FEWEST_CAPTIONS: Final = 50
"""Fewer held-out captions tell no rate; then it is the share of labels that all captions have."""
CAPTIONS_PER_BATCH: Final = 512


@task(name="decision rate", cache_policy=NO_CACHE, task_run_name="decision rate")
def choose_rate(profile: Profile, vocabulary: Vocabulary, outcome: Outcome) -> Outcome:
    """The outcome with the rate at which images are tagged, where captions were learned from."""
    name, choice = profile.headline_method, outcome.choice
    if choice is None:
        return outcome
    method, fitted = profile.method(name), outcome.fitted[name]
    held = fitted.counts.get("captions/held_out", 0)
    asks_scores = held >= FEWEST_CAPTIONS and scores_captions(method)
    lesson = Lesson.of_captions(choice, method.reads, outcome.encoded(method.reads))

    def work(out: Path) -> Result:
        count, rate = held_out_rate() if asks_scores else label_share(choice, vocabulary)
        write_whole(out / "rate.json", json.dumps({RATE: rate}) + "\n")
        return Result({"captions": count}, {RATE: rate})

    def held_out_rate() -> tuple[int, float]:
        captions = open_lesson(profile, vocabulary, lesson)
        templates = templates_in(choice)
        _, rows = split_captions(len(captions), templates, profile.captions, profile.seed)
        device = load(profile).backbone.device
        state = {key: each.to(device) for key, each in read_state(fitted.folder).items()}
        found = caption_scores(captions, rows, method, state, device)
        return len(rows), decision_rate(*found)

    recipe = recipe_of(
        "rate",
        __name__,
        *method.modules(),
        inputs={
            "choice": choice.digest,
            "features": digests_of(lesson.stages),
            "fitted": fitted.digest,
            "backbone": identity_of(profile),
        },
        parameters={
            "method": name,
            **method.described(),
            "held_out": profile.captions.held_out,
            "seed": profile.seed,
        },
    )
    return replace(outcome, rate=run_stage(recipe, work))


def label_share(choice: Stage, vocabulary: Vocabulary) -> tuple[int, float]:
    """Chosen captions, and the share of the classes that one of them names."""
    named = pc.list_value_length(read_classes(choice.folder)).to_numpy()
    # class templates come last
    captions = named[: len(named) - templates_in(choice)]
    return len(captions), float(captions.mean() / len(vocabulary.classes))


def scores_captions(method: Method) -> bool:
    """Whether a method scores captions, which tell a rate."""
    return method.owner("score_captions") is not Method


def caption_scores(
    captions: Examples[Any], rows: torch.Tensor, method: Method, state: State, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Merged scores [N, C] and labels [N, C] of the captions `rows`."""
    scores, labels = [], []
    for some in rows.split(CAPTIONS_PER_BATCH):
        batch = captions.batch(some, device)
        with torch.inference_mode():
            found = method.score_captions(state, batch)
        if found is None:
            raise ValueError(f"{method.name} scores no captions")
        scores.append(found["merged"].cpu())
        labels.append(batch.labels.cpu())
    return torch.cat(scores), torch.cat(labels)
