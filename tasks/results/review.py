"""A review: a sample of tagged images, what a person marked on it, and what that says of them all.

    sample.parquet   file, stratum, given and scores [C], a row per image in the order to be marked
    card.json        what was reviewed: images, classes, thresholds, sizes of the strata

Marks are a CSV with a row per image and class: `file`, `class`, `mark` (1 shown, 0 not shown, ? not
to be told). An image that is in it was looked through to the end: what it does not name, it does
not show. So it is also a list of labelled images, as `[labelled]` takes it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from models.decisions import image_thresholds
from models.lazily import lazily
from models.metrics import top_decisions
from tasks.errors import InputError
from tasks.images.lists import read_table
from tasks.places import Place
from tasks.results import track
from tasks.results.evaluate import TOP
from tasks.results.outcome import found_again
from tasks.results.runs import find_runs, logged
from tasks.results.score import SCORES, scores_of
from tasks.results.tags import thresholds_of
from tasks.workspace import find_stage, write_whole

with lazily():
    import torch

    from models.moved import moved_thresholds
    from models.survey import Estimate, Sample, draw_sample, ratio

SAMPLE: Final = "sample.parquet"
CARD: Final = "card.json"
COLUMNS: Final = ("review", "file", "class", "mark")
MARKS: Final = {"1": 1, "0": 0, "?": -1}
FOLDS: Final = 5
FEWEST: Final = 2
"""Images without which nothing can be said of others."""


@dataclass(frozen=True)
class Tagged:
    """Images with their scores, as they were tagged."""

    name: str
    folder: Place
    files: list[str]
    classes: tuple[str, ...]
    scores: torch.Tensor
    """[N, C]."""
    thresholds: torch.Tensor
    """[C]; where there are none, those that give as many tags as were given."""
    given: torch.Tensor
    """[N, C] which classes each image was tagged with."""
    run_id: str | None
    model: str | None
    """The model that tagged, as `flows.predict` takes it."""


@dataclass(frozen=True)
class Review:
    """A sample that was drawn, as its stage keeps it."""

    key: str
    card: dict[str, Any]
    files: list[str]
    """[n] in the order to be marked."""
    scores: torch.Tensor
    """[n, C]."""
    given: torch.Tensor
    """[n, C]."""
    sample: Sample

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the C classes."""
        return tuple(self.card["classes"])

    @property
    def thresholds(self) -> torch.Tensor:
        """[C] by which the images were tagged."""
        return torch.tensor(self.card["thresholds"], dtype=torch.float64)


@dataclass(frozen=True)
class Shares:
    """Precision and recall of tags; None where the sample has nothing to tell it from."""

    precision: Estimate | None
    recall: Estimate | None


@dataclass(frozen=True)
class Findings:
    """What the marks say."""

    images: int
    left: int
    """Images of the sample that were not marked."""
    unknown: int
    """Marks that say nothing."""
    overall: Shares
    classes: dict[str, Shares]
    moved: torch.Tensor
    """[C] thresholds moved by the marks."""
    after: Shares
    """Of tags by moved thresholds, each image's by the marks of others."""


def tagged_of_run(name: str, images: str | None) -> Tagged:
    """The images of a finished run, by its headline method.

    Args:
        name: the run, as `find_runs` takes it.
        images: one of its image sets; by default the first.

    """
    (run,) = find_runs([name])
    profile, (keys,) = logged(run, track.STAGES)
    outcome = found_again(keys)
    names = [each.name for each in profile.images]
    if not names:
        raise InputError(f"run {run.info.run_id[:8]}: it looked at no images")
    if images is not None and images not in names:
        raise InputError(f"image set {images!r}: the run has {', '.join(names)}")
    image_set = profile.images[names.index(images) if images else 0]
    evaluation = outcome.scored(profile.headline_method, image_set.name)
    scores = scores_of(evaluation)
    classes = tuple(outcome_classes(outcome.fitted[profile.headline_method].folder))
    thresholds = None
    if by_class := thresholds_of(outcome.tags[image_set.name]):
        thresholds = torch.tensor([by_class[label] for label in classes], dtype=torch.float64)
    return tagged(
        name=f"{profile.name}, {image_set.name}",
        folder=profile.place(image_set.folder),
        files=pq.read_table(evaluation.file(SCORES), columns=["file"])["file"].to_pylist(),
        classes=classes,
        scores=scores,
        thresholds=thresholds,
        run_id=run.info.run_id,
        model=run.data.tags.get("model", "").removeprefix("models:/") or None,
    )


def outcome_classes(fitted: Path) -> list[str]:
    """Names of the classes that a fit stage's method tells apart."""
    card = json.loads((fitted / "card.json").read_text(encoding="utf-8"))
    return [str(label) for label in card["classes"]]


def tagged(*, scores: torch.Tensor, thresholds: torch.Tensor | None, **rest: Any) -> Tagged:
    """Tags as they are given: above thresholds, or the three best where there are none."""
    if thresholds is None:
        top = min(TOP, scores.shape[1])
        given = top_decisions(scores, top)
        thresholds = image_thresholds(scores, top / scores.shape[1])
    else:
        given = scores.double() > thresholds
    return Tagged(scores=scores, thresholds=thresholds, given=given, **rest)


def draw(found: Tagged, count: int, seed: int) -> Sample:
    """The images to look at, stratified by how far their surest class is above its threshold."""
    spread = found.scores.double().std(dim=0, correction=0).clamp(min=1e-12)
    sureness = ((found.scores.double() - found.thresholds) / spread).max(dim=1).values
    generator = torch.Generator().manual_seed(seed)
    return draw_sample(sureness, found.given.sum(dim=1), count, generator)


def write_sample(found: Tagged, sample: Sample, out: Path) -> None:
    """Write a review's sample and its card to `out`."""
    rows = sample.rows
    table = pa.table(
        {
            "file": [found.files[row] for row in rows.tolist()],
            "row": rows.tolist(),
            "stratum": sample.strata.tolist(),
            "given": found.given[rows].tolist(),
            "scores": found.scores[rows].double().tolist(),
        }
    )
    pq.write_table(table, out / SAMPLE)
    card = card_of(found, sample)
    write_whole(out / CARD, json.dumps(card, indent=2, ensure_ascii=False) + "\n")


def card_of(found: Tagged, sample: Sample) -> dict[str, Any]:
    """What the review is of."""
    return {
        "name": found.name,
        "folder": str(found.folder),
        "images": len(found.files),
        "classes": list(found.classes),
        "thresholds": found.thresholds.tolist(),
        "spread": found.scores.double().std(dim=0, correction=0).tolist(),
        "sizes": sample.sizes.tolist(),
        "run": found.run_id,
        "model": found.model,
    }


def read_review(key: str) -> Review:
    """The review of that key, as marks name it.

    Raises:
        InputError: it is not in this workspace.

    """
    stage = find_stage("review", key)
    card = json.loads(stage.file(CARD).read_text(encoding="utf-8"))
    table = pq.read_table(stage.file(SAMPLE)).to_pydict()
    rows, strata = (torch.tensor(table[name]) for name in ("row", "stratum"))
    return Review(
        key,
        card,
        table["file"],
        torch.tensor(table["scores"], dtype=torch.float64),
        torch.tensor(table["given"]).bool(),
        Sample(rows, strata, torch.tensor(card["sizes"])),
    )


def read_marks(path: Path) -> tuple[Review, torch.Tensor, torch.Tensor]:
    """The review that a CSV of marks is of, the places [m] of the marked images, marks [m, C].

    Raises:
        InputError: a line is no mark; the message names it.

    """
    rows = read_table(path, *COLUMNS)
    if not rows:
        raise InputError(f"{path}: no mark; look at some images and save again")
    key = rows[0][1][0]
    if not (key.isalnum() and key.isascii()):
        raise InputError(f"{path}, line {rows[0][0]}: {key[:40]!r} is no review's key")
    review = read_review(key)
    # a CSV's cells lose their outer blanks
    places = {file.strip(): place for place, file in enumerate(review.files)}
    columns = {label: c for c, label in enumerate(review.classes)}
    found: dict[int, dict[int, int]] = {}
    for line, (of_review, file, label, mark) in rows:
        where = f"{path}, line {line}"
        if of_review != key:
            raise InputError(f"{where}: marks of another review ({of_review[:40]!r}, not {key!r})")
        if file not in places:
            raise InputError(f"{where}: {file[:200]!r} is no image of this review")
        marks = found.setdefault(places[file], {})
        if not label and not mark:
            continue
        if label not in columns or mark not in MARKS:
            raise InputError(
                f"{where}: expected a class and 1 (shown), 0 (not shown) or ?, got "
                f"{label[:60]!r} and {mark[:20]!r}"
            )
        if marks.setdefault(columns[label], MARKS[mark]) != MARKS[mark]:
            raise InputError(f"{where}: a second mark of {label!r} on {file!r}; remove one")
    matrix = torch.zeros(len(found), len(columns), dtype=torch.int8)
    for row, place in enumerate(sorted(found)):
        for column, value in found[place].items():
            matrix[row, column] = value
    return review, torch.tensor(sorted(found)), matrix


def findings(review: Review, places: torch.Tensor, marks: torch.Tensor) -> Findings:
    """What marks [m, C] of the images at `places` [m] say of all images.

    Raises:
        InputError: too few images are marked to say anything of the others.

    """
    if len(places) < min(FEWEST, len(review.files)):
        raise InputError(f"{len(places)} image is marked; mark {FEWEST} or more")
    sample, given = review.sample.only(places), review.given[places]
    scores, spread = review.scores[places], torch.tensor(review.card["spread"]).double()

    def moved(rows: torch.Tensor) -> torch.Tensor:
        weights = sample.weights()[rows]
        return moved_thresholds(scores[rows], marks[rows], weights, review.thresholds, spread)

    # places come mixed from all strata, so every fifth is a fair part
    folds = torch.arange(len(places)) % FOLDS
    after = torch.zeros_like(given)
    for fold in range(min(FOLDS, len(places))):
        after[folds == fold] = scores[folds == fold] > moved((folds != fold).nonzero().flatten())
    return Findings(
        images=len(places),
        left=len(review.files) - len(places),
        unknown=int((marks < 0).sum()),
        overall=shares(sample, given, marks),
        classes={
            label: shares(sample, given[:, c : c + 1], marks[:, c : c + 1])
            for c, label in enumerate(review.classes)
        },
        moved=moved(torch.arange(len(places))),
        after=shares(sample, after, marks),
    )


def shares(sample: Sample, given: torch.Tensor, marks: torch.Tensor) -> Shares:
    """Precision and recall of tags `given` [m, C] by `marks` [m, C]; unknown ones count nowhere."""
    known, shown = marks >= 0, marks == 1
    right = (given & shown).sum(dim=1)
    return Shares(
        ratio(sample, right, (given & known).sum(dim=1)), ratio(sample, right, shown.sum(dim=1))
    )
