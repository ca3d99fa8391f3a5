"""Report stage: one page that shows a run, from raw lines to scores, to somebody who was not there.

The page is a file of its own: no network, no script, every picture inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb
import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE

import sql
from models.decisions import FEWEST_IMAGES
from models.lazily import lazily
from models.method import Method
from models.metrics import bootstrap_maps, interval
from tasks import pages
from tasks.backbone.loading import load
from tasks.corpus import ingest
from tasks.images.features import REJECTS, open_features
from tasks.images.labelled import label_matrix
from tasks.labels.label import LABELS
from tasks.methods.state import read_state
from tasks.pages import account, charts, showcase, story, tagged, words

# the page asks the profile, so its code belongs to the page's key
from tasks.profile import Profile
from tasks.results.evaluate import TOP, ap_rows, classes_told
from tasks.results.groups import groups_of
from tasks.results.outcome import BRANCHES, Outcome
from tasks.results.score import SCORES, scores_of
from tasks.workspace import Result, Stage, digest_of, recipe_of, run_stage, write_whole

with lazily():
    import torch

    from models.backbone import Backbone

if TYPE_CHECKING:
    from tasks.labels.vocabulary import Vocabulary
    from tasks.settings import ImageSet

PAGE: Final = "index.html"
KAPPA: Final = 50.0
"""Local softmax's scale on captions where a method has none of its own (METHODS 1)."""
CAPTIONS_SHOWN: Final = 8
ANSWERS_SHOWN: Final = 5
LISTED: Final = 50
FEWEST_POSITIVES: Final = 10
"""An AP over fewer images of a class moves by chance."""


@task(name="report", cache_policy=NO_CACHE, task_run_name="report")
def report(profile: Profile, vocabulary: Vocabulary, outcome: Outcome, command: str) -> Stage:
    """The page that shows a finished run."""

    def work(out: Path) -> Result:
        def backbone() -> Backbone:
            return load(profile).backbone

        return Result(write_report(profile, vocabulary, outcome, command, backbone, out), {})

    keys = [[of, stage.name, stage.key, stage.digest] for of, stage in outcome.all()]
    recipe = recipe_of(
        "report",
        __name__,
        *(module for name in profile.run for module in profile.method(name).modules()),
        inputs={"stages": digest_of(keys), "vocabulary": vocabulary.digest},
        parameters={"command": command, "profile": profile.flat()},
    )
    return run_stage(recipe, work)


def write_report(
    profile: Profile,
    vocabulary: Vocabulary,
    outcome: Outcome,
    command: str,
    backbone: Callable[[], Backbone],
    out: Path,
) -> dict[str, int]:
    """Write the page of a finished run to `out`; returns how much it shows.

    Args:
        profile: the run's settings.
        vocabulary: its classes.
        outcome: its stages.
        command: what to type to run it again.
        backbone: loads the frozen CLIP, which reads a few captions once more.
        out: folder to write index.html to.

    """
    method = profile.headline_method
    measured = _Measured.of(profile, vocabulary, outcome) if profile.measured else None
    examples = _examples(outcome)
    lead = story.lead_caption(examples)
    captions, labelled_images = story.learned_from(profile, outcome)
    chosen = profile.method(method)
    local = chosen.class_vectors(read_state(outcome.fitted[method].folder)).get("local")
    maps: list[showcase.Shown] = []
    answers: list[dict[str, Any]] = []
    if local is not None and measured:
        maps = showcase.maps(measured.scored, open_features(outcome.images[measured.name]), local)
    elif local is not None and profile.images:
        first = profile.images[0]
        maps = tagged.maps(profile, first, outcome, vocabulary.classes, local)
    if local is not None and chosen.learns_from == "captions":
        kappa = float(getattr(chosen.settings, "kappa", KAPPA))
        reader = backbone()
        # which words answer, only a tower tells that looks at them one by one
        if reader.is_causal:
            answers = _answers(examples, vocabulary, local, reader, kappa)
    drawn = charts.learning_charts(outcome, method)
    if measured:
        of_scores = charts.measured_charts(outcome, method, measured.name, measured.scored.labels)
        drawn = of_scores + drawn
    context: dict[str, Any] = {
        "profile": profile,
        "title": story.title_of(profile, len(vocabulary.classes)),
        "lead": words.spans_of(lead["text"], lead["spans"]) if lead else [],
        "warning": ""
        if profile.backbone.pretrained
        else "The CLIP of this run has random weights: it shows that the road is whole, not that "
        "the method works.",
        "method": method,
        "captions": captions,
        "labelled_images": labelled_images,
        "headline": _headline(outcome, method, measured) if measured else None,
        "tables": [_table(profile, each, outcome, method) for each in profile.measured],
        "notes": story.branch_notes(profile, outcome, measured.name) if measured else [],
        "best": measured.best if measured else [],
        "worst": measured.worst if measured else [],
        "tagged": tagged.sections(profile, outcome, vocabulary.classes),
        "maps": maps,
        "labelled": [words.spans_of(row["text"], row["spans"]) for row in examples],
        "answers": answers,
        "charts": drawn,
        "thresholds": _thresholds(outcome, measured.name) if measured else None,
        "steps": account.account_of(outcome),
        "command": command,
        "stages": [
            {"stage": stage.name, "of": of, "key": stage.key, "digest": stage.digest[:16]}
            for of, stage in outcome.all()
        ],
        "settings": profile.flat(),
        "versions": "Made with "
        + ", ".join(f"{name} {version(name)}" for name in ("torch", "open_clip_torch", "duckdb")),
    }
    write_whole(out / PAGE, pages.render("report.html", **context))
    return {"charts": len(drawn), "heat_maps": sum(len(image.tags) for image in maps)}


@dataclass(frozen=True)
class _Measured:
    """The first image set of known labels, by the headline method."""

    name: str
    scored: showcase.Scored
    best: list[showcase.Shown]
    worst: list[showcase.Shown]

    @classmethod
    def of(cls, profile: Profile, vocabulary: Vocabulary, outcome: Outcome) -> _Measured:
        """Its scores, and images understood best and worst."""
        image_set = profile.measured[0]
        evaluation = outcome.evaluations[profile.headline_method][image_set.name]
        table = pq.read_table(evaluation.file(SCORES))
        scored = showcase.Scored(
            folder=profile.place(image_set.folder),
            table=table,
            classes=vocabulary.classes,
            scores=scores_of(evaluation),
            labels=label_matrix(table, vocabulary.classes),
        )
        rows, count = scored.understood(), showcase.CARDS
        worst = rows[count:][: -count - 1 : -1]
        best = showcase.cards(scored, rows[:count])
        return cls(image_set.name, scored, best, showcase.cards(scored, worst))


def _headline(outcome: Outcome, method: str, measured: _Measured) -> dict[str, Any]:
    name, scored = measured.name, measured.scored
    figures = outcome.evaluations[method][name].figures
    headline = {
        "method": method,
        "images": name,
        "ours": figures["mAP/merged"],
        "low": figures["mAP_low/merged"],
        "high": figures["mAP_high/merged"],
        "classes": classes_told(figures),
        "gain": None,
    }
    baseline = outcome.baseline(name)
    if baseline is not None and method != baseline:
        both = {"ours": scored.scores, "before": scores_of(outcome.evaluations[baseline][name])}
        maps = bootstrap_maps(both, scored.labels)
        before = outcome.evaluations[baseline][name].figures["mAP/merged"]
        gain = figures["mAP/merged"] - before
        low, high = interval(maps["ours"] - maps["before"], gain)
        headline |= {"baseline": baseline, "gain": gain, "gain_low": low, "gain_high": high}
    return headline


def _table(profile: Profile, image_set: ImageSet, outcome: Outcome, method: str) -> dict[str, Any]:
    """The scores on an image set: rows by what was learned from, and images that have none."""
    found = {name: stages[image_set.name] for name, stages in outcome.evaluations.items()}
    groups = [
        {"learned_from": told, "rows": _rows(profile, {name: found[name] for name in names})}
        for told, names in groups_of(profile, outcome).items()
    ]
    ours = found[method]
    rejects = pq.read_table(outcome.images[image_set.name].file(REJECTS)).slice(0, LISTED)
    return {
        "name": image_set.name,
        "groups": groups,
        "images": ours.counts["images"],
        "scored": ours.counts["images/scored"],
        "missing": ours.counts["images/without_score"],
        "classes": classes_told(ours.figures),
        "missing_last": ours.figures.get("mAP_missing_last/merged"),
        "ignored_negative": ours.figures.get("mAP_ignored_negative/merged"),
        "rejects": rejects.to_pylist(),
        "few": _few(ours),
        "by_class": story.class_table(outcome, image_set.name),
    }


def _rows(profile: Profile, found: dict[str, Stage]) -> list[dict[str, Any]]:
    """A row per method of a group; the best of the group is marked."""
    best = {
        branch: max(stage.figures.get(f"mAP/{branch}", -math.inf) for stage in found.values())
        for branch in BRANCHES
    }
    return [
        {
            "method": name,
            "what": _what(profile.method(name)),
            "cells": [
                {
                    "value": stage.figures.get(f"mAP/{branch}"),
                    "low": stage.figures.get(f"mAP_low/{branch}"),
                    "high": stage.figures.get(f"mAP_high/{branch}"),
                    "best": len(found) > 1 and stage.figures.get(f"mAP/{branch}") == best[branch],
                }
                for branch in reversed(BRANCHES)
            ],
            "cf1": stage.figures[f"CF1/top{TOP}"],
            "of1": stage.figures[f"OF1/top{TOP}"],
        }
        for name, stage in found.items()
    ]


def _what(method: Method) -> str:
    """One sentence, with the methods that it builds on."""
    parts = " + ".join(part.name for part in method.parts)
    return f"{method.summary}: {parts}" if parts else method.summary


def _few(evaluation: Stage) -> str:
    """A sentence where an mAP rests on few images or few labels; else empty."""
    images = evaluation.counts["images/scored"]
    shown = [int(row["positives"]) for row in ap_rows(evaluation) if int(row["positives"])]
    rare = sum(count < FEWEST_POSITIVES for count in shown)
    told = [f"{images:,} images are few"] if images < FEWEST_IMAGES else []
    told += (
        [f"{rare} of {len(shown)} classes are shown by fewer than {FEWEST_POSITIVES} images"]
        if rare
        else []
    )
    return f"{' and '.join(told)}: these figures move by chance." if told else ""


def _thresholds(outcome: Outcome, name: str) -> dict[str, Any] | None:
    """How good decisions are by thresholds that captions chose."""
    if outcome.rate is None or "OF1/threshold" not in outcome.tags[name].figures:
        return None
    figures, counts = outcome.tags[name].figures, outcome.rate.counts
    return {
        "captions": counts["captions"],
        "cf1": figures["CF1/threshold"],
        "of1": figures["OF1/threshold"],
    }


def _examples(outcome: Outcome) -> list[dict[str, Any]]:
    """Labelled captions (text, classes, spans), each with a class that those before have not."""
    with duckdb.connect() as connection:
        labels = [str(stage.file(LABELS)) for stage in outcome.labels]
        connection.read_parquet(labels).create_view("labels")
        corpora = [str(stage.file(ingest.CORPUS)) for stage in outcome.corpora]
        connection.read_parquet(corpora).create_view("corpus")
        rows = connection.sql(sql.query("report/examples")).to_arrow_table().to_pylist()
    chosen: list[dict[str, Any]] = []
    seen: set[str] = set()
    for row in rows:
        if len(chosen) < CAPTIONS_SHOWN and not set(row["classes"]) <= seen:
            chosen.append(row)
            seen |= set(row["classes"])
    return chosen


def _answers(
    examples: Sequence[dict[str, Any]],
    vocabulary: Vocabulary,
    local_prompts: torch.Tensor,
    backbone: Backbone,
    kappa: float,
) -> list[dict[str, Any]]:
    """What a class's local prompt answers to in a few captions that name it."""
    found = []
    for row in examples[:ANSWERS_SHOWN]:
        label = row["classes"][0]
        prompt = local_prompts[vocabulary.classes.index(label)]
        pieces = words.answering_words(row["text"], prompt, backbone, kappa)
        found.append({"label": label, "pieces": pieces})
    return found
