"""The report's charts: what they show of a run, in figures and in words."""

from __future__ import annotations

from typing import Any, Final

import duckdb
import numpy as np

import sql
from models.lazily import lazily
from models.metrics import mean_precision_at_recall
from tasks import pages
from tasks.labels.label import LABELS
from tasks.methods.fit import history_of
from tasks.pages import pictures, story
from tasks.pages.together import pairs_chart
from tasks.results.evaluate import ap_rows
from tasks.results.outcome import Outcome
from tasks.results.score import scores_of

with lazily():
    import torch

LARGEST_CHART: Final = 60


def measured_charts(
    outcome: Outcome, method: str, name: str, labels: torch.Tensor
) -> list[dict[str, Any]]:
    """Title, explanation and picture of each chart of a method's scores on the image set `name`.

    `labels` are the set's, [N, C]. What the run lacks (a baseline) has no chart.
    """
    charts = []
    places = _places(outcome)
    baseline = outcome.baseline(name)
    if baseline is not None and method != baseline:
        charts.append(_ap_chart(outcome, baseline, method, name))
    curves = {
        each: mean_precision_at_recall(scores_of(stages[name]), labels).numpy()
        for each, stages in outcome.evaluations.items()
    }
    middles = ", ".join(f"{each} {100 * curve[50]:.0f} %" for each, curve in curves.items())
    charts.append(
        {
            "title": "Precision and recall",
            "explanation": "Going down the ranking until a share of a class's images is found, "
            "how many of those met are right? Mean over classes, merged scores.",
            "svg": pages.picture(
                pictures.precision_recall(curves, places),
                f"Precision over recall; at half the images found: {middles}",
            ),
        }
    )
    return charts


def learning_charts(outcome: Outcome, method: str) -> list[dict[str, Any]]:
    """Those of training, where there was any, and of what captions name."""
    charts: list[dict[str, Any]] = []
    places = _places(outcome)
    # two methods may share a training: one line for both, in the headline's name
    ordered = sorted(outcome.fitted.items(), key=lambda found: found[0] == method)
    last_of = {stage.digest: each for each, stage in ordered}
    histories = {
        each: history for each in last_of.values() if (history := history_of(outcome.fitted[each]))
    }
    if histories:
        shown = histories.get(method) or next(iter(histories.values()))
        first, last = (shown[at]["loss/train"] for at in (0, -1))
        charts.append(
            {
                "title": "Learning",
                "explanation": story.learning_explained(outcome, list(histories)),
                "svg": pages.picture(
                    pictures.training(histories, places),
                    f"Loss by epoch, from {first:.3g} to {last:.3g}, and the learning rate",
                ),
            }
        )
    return charts + pairs_chart(_named_together(outcome))


def _places(outcome: Outcome) -> dict[str, int]:
    """Place of each method among a chart's colours, in the order of the run."""
    return {name: place for place, name in enumerate(outcome.evaluations)}


def _ap_chart(outcome: Outcome, baseline: str, method: str, name: str) -> dict[str, Any]:
    tables = {}
    for each in (baseline, method):
        rows = ap_rows(outcome.evaluations[each][name])
        tables[each] = [row for row in rows if row["AP/merged"]]
    # many classes would make a chart nobody reads: the ones that most images show
    common = sorted(tables[method], key=lambda row: -int(row["positives"]))[:LARGEST_CHART]
    labels = [row["class"] for row in common]
    before = {row["class"]: float(row["AP/merged"]) for row in tables[baseline]}
    after = [float(row["AP/merged"]) for row in common]
    gains = [value - before[label] for label, value in zip(labels, after, strict=True)]
    better = sum(gain > 0 for gain in gains)
    is_cut = len(labels) < len(tables[method])
    which = f"the {len(labels)} classes that most images show" if is_cut else "every class"
    return {
        "title": "Class by class",
        "explanation": f"AP of {which}. {better} of them got better than with {baseline}; "
        f"the largest gain is {labels[int(np.argmax(gains))]}'s, {max(gains):+.1f}, the largest "
        f"loss {labels[int(np.argmin(gains))]}'s, {min(gains):+.1f}.",
        "svg": pages.picture(
            pictures.ap_by_class(
                labels, [before[label] for label in labels], after, (baseline, method)
            ),
            f"AP by class: {better} of {len(labels)} are better with {method}",
        ),
    }


def _named_together(outcome: Outcome) -> list[tuple[str, str, int]]:
    """Pairs of classes with the captions that name both; see sql/report/co_occurrence.sql."""
    with duckdb.connect() as connection:
        files = [str(stage.file(LABELS)) for stage in outcome.labels]
        connection.read_parquet(files).create_view("labels")
        return connection.execute(sql.query("report/co_occurrence")).fetchall()
