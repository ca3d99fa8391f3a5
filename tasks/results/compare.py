"""Runs side by side: settings that differ, metrics with intervals, classes that gain and lose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from models.lazily import lazily
from models.metrics import interval
from tasks.errors import InputError
from tasks.profile import Profile
from tasks.results import track
from tasks.results.evaluate import ap_rows, classes_told, paired_maps
from tasks.results.outcome import found_again
from tasks.results.runs import find_runs, logged
from tasks.results.score import SCORES
from tasks.workspace import Stage

with lazily():
    import torch
    from mlflow.entities import Run as MlflowRun


@dataclass(frozen=True)
class Candidate:
    """A finished run of `tai`."""

    run_id: str
    name: str
    profile: Profile
    metrics: dict[str, float]
    evaluations: dict[str, Stage]
    """The headline method's scores by image set; empty where this workspace has them not."""
    precisions: dict[str, dict[str, float]]
    """The headline method's merged AP by image set and class, in percent."""


@dataclass(frozen=True)
class Score:
    """A candidate's merged mAP on an image set, and how far it is above the first candidate's."""

    name: str
    value: float
    low: float
    high: float
    classes: str
    """Those that it is the mean over: `3 of 6`; empty where the run does not tell."""
    gain: float | None
    gain_low: float | None
    gain_high: float | None
    """None for the first candidate, and where the images, labels or classes are not the same."""


@dataclass(frozen=True)
class Verdict:
    """All candidates on one image set, in the order that they were named."""

    images: str
    scores: tuple[Score, ...]
    winner: str
    """One sentence."""


def find_candidates(names: Sequence[str]) -> list[Candidate]:
    """Finished runs of `tai` by id, start of an id, name, `latest`, or `latest~1` (the one before).

    Raises:
        InputError: a name fits no run or several; the message lists the latest runs.

    """
    return [_candidate(run) for run in find_runs(names)]


def verdicts(candidates: Sequence[Candidate]) -> list[Verdict]:
    """What the runs say of each image set that all of them have, by its name."""
    shared = [
        image_set.name
        for image_set in candidates[0].profile.measured
        if all(
            image_set.name in candidate.precisions
            and "mAP" in track.figures_in(candidate.metrics, image_set.name)
            for candidate in candidates
        )
    ]
    return [_verdict(name, candidates) for name in shared]


def differing(candidates: Sequence[Candidate]) -> dict[str, list[str]]:
    """Settings that are not the same in all runs, with each run's value."""
    flat = [_without_paths(candidate.profile.flat()) for candidate in candidates]
    names = list(dict.fromkeys(name for settings in flat for name in settings))
    values = {name: [str(settings.get(name, "")) for settings in flat] for name in names}
    return {name: row for name, row in values.items() if len(set(row)) > 1}


def _without_paths(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as they are on any machine: where the same data lies is no difference."""
    named = {k: Path(v).name if Path(str(v)).is_absolute() else v for k, v in settings.items()}
    return {name: value for name, value in named.items() if name != "data"}


def moved(images: str, candidates: Sequence[Candidate]) -> list[tuple[str, float, float, float]]:
    """Class, AP in the first run, in the last, and the gain; largest gain first."""
    before, after = (candidates[at].precisions[images] for at in (0, -1))
    rows = [(c, before[c], after[c], after[c] - before[c]) for c in before if c in after]
    return sorted(rows, key=lambda row: -row[3])


def _candidate(run: MlflowRun) -> Candidate:
    profile, _ = logged(run)
    if not profile.measured:
        raise InputError(
            f"run {run.info.run_id[:8]}: measured nothing, for no label of its images is known; "
            "expected runs with `annotations`"
        )
    _, (keys, table) = logged(run, track.STAGES, track.AP_TABLE)
    precisions: dict[str, dict[str, float]] = {}
    for values in table["data"]:
        row = dict(zip(table["columns"], values, strict=True))
        if row["method"] == profile.headline_method and row["AP/merged"] not in ("", None):
            precisions.setdefault(row["images"], {})[row["class"]] = float(row["AP/merged"])
    try:
        evaluations = found_again(keys).evaluations[profile.headline_method]
    except InputError:
        # made in another workspace: its intervals are in its metrics, pairs are not to be had
        evaluations = {}
    name = f"{shortened(run.info.run_name)} ({run.info.run_id[:6]})"
    return Candidate(
        run.info.run_id, name, profile, dict(run.data.metrics), evaluations, precisions
    )


def shortened(name: str, most: int = 32) -> str:
    """A name that fits a table's column, without its middle."""
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-(most // 2 - 1) :]}"


def _verdict(images: str, candidates: Sequence[Candidate]) -> Verdict:
    maps = _paired_maps(images, candidates)
    scores: list[Score] = []
    for number, candidate in enumerate(candidates):
        told = track.figures_in(candidate.metrics, images)
        value, low, high = (told[name] for name in ("mAP", "mAP_low", "mAP_high"))
        gain: tuple[float | None, float | None, float | None] = (None, None, None)
        if number and maps:
            lead = value - scores[0].value
            gain = (lead, *interval(maps[number] - maps[0], lead))
        classes = {name.replace("_", "/", 1): of for name, of in told.items()}
        scores.append(Score(candidate.name, value, low, high, classes_told(classes), *gain))
    return Verdict(images, tuple(scores), _winner(scores, maps))


def _winner(scores: Sequence[Score], maps: Sequence[torch.Tensor]) -> str:
    order = sorted(range(len(scores)), key=lambda number: -scores[number].value)
    best, second = order[:2]
    lead = scores[best].value - scores[second].value
    if not maps:
        return (
            f"{scores[best].name} has the highest mAP, but the runs were not measured on the same "
            "images, labels and classes, so no run wins."
        )
    low, high = interval(maps[best] - maps[second], lead)
    told = f"{lead:.2f} points above {scores[second].name}, 95 % interval {low:+.2f} to {high:+.2f}"
    if low > 0:
        return f"{scores[best].name} wins: {told}."
    return f"No clear winner: {scores[best].name} is {told}, which includes 0."


def _paired_maps(images: str, candidates: Sequence[Candidate]) -> list[torch.Tensor]:
    """Bootstrap mAPs of all runs on the same resamples; none where the sets are not the same."""
    if not all(images in candidate.evaluations for candidate in candidates):
        return []
    stages = [candidate.evaluations[images] for candidate in candidates]
    if len({stage.manifest["inputs"]["image-set"] for stage in stages}) > 1:
        return []
    classes = [[row["class"] for row in ap_rows(stage)] for stage in stages]
    if not all(names == classes[0] for names in classes):
        return []
    tables = [pq.read_table(stage.file(SCORES), columns=["file"]) for stage in stages]
    if not all(table.equals(tables[0]) for table in tables):
        return []
    return paired_maps(stages)
