"""What the report says in sentences: each is worked out from the run, so none is said of another.

A sentence that is true of some runs alone stands here beside what makes it true.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tasks.catalogue import method_class
from tasks.results.evaluate import TOP, ap_rows
from tasks.results.groups import groups_of
from tasks.results.outcome import BRANCHES, Outcome

if TYPE_CHECKING:
    from tasks.profile import Profile
    from tasks.workspace import Stage

OF_BRANCH = {
    "merged": "what decides: all that a method knows of an image, taken together",
    "local": "its places, those that answer most counting most",
    "global": "the image as a whole",
}


def title_of(profile: Profile, classes: int) -> str:
    """The report's title: how many classes, and what the headline method learned from."""
    taught = profile.taught_by(profile.headline_method) - {"nothing"}
    learned = "with nothing learned"
    if taught:
        learned = f"learned from {' and '.join(sorted(taught))}"
        learned += " alone" * (taught == {"captions"})
    return f"Recognising {classes:,} class{'es' * (classes != 1)}, {learned}"


def lead_caption(examples: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The caption to lead with: one that names several classes, and one by another word."""

    def told(row: Mapping[str, Any]) -> tuple[int, int]:
        renamed = sum(
            row["text"][span["start"] : span["end"]].lower() != span["class"].lower()
            for span in row["spans"]
        )
        return min(len(row["classes"]), 3), min(renamed, 1)

    return max(examples, key=told, default=None)


def branch_notes(profile: Profile, outcome: Outcome, images: str) -> list[str]:
    """What the columns of a table of scores mean, and why one row must not be held against another.

    Args:
        profile: the run's settings.
        outcome: its stages.
        images: name of an image set of known labels.

    """
    figures = {name: stages[images].figures for name, stages in outcome.evaluations.items()}
    there = [b for b in reversed(BRANCHES) if any(f"mAP/{b}" in of for of in figures.values())]
    notes = [f"Columns: {'; '.join(f'{branch}, {OF_BRANCH[branch]}' for branch in there)}."]
    if any(len(names) > 1 for names in groups_of(profile, outcome).values()):
        notes.append("Bold: the highest of its column among methods that learned from the same.")
    baseline = outcome.baseline(images)
    known = figures.get(baseline or "", {})
    for name, of in figures.items():
        is_whole = "mAP/local" not in of and "mAP/global" in of
        if "nothing" in profile.taught_by(name) or not is_whole or "mAP/local" not in known:
            continue
        if "mAP/global" in known and of["mAP/merged"] < known["mAP/merged"]:
            notes.append(
                f"{name} looks at images as a whole alone: its {of['mAP/global']:.1f} is to be "
                f"held against {baseline}'s global {known['mAP/global']:.1f}; the merged "
                f"{known['mAP/merged']:.1f} of {baseline} looks at places as well."
            )
    notes.append(
        f"CF1, OF1: F1 of tagging each image with its {TOP} highest classes, averaged over classes "
        "and over all tags."
    )
    return notes


def class_table(outcome: Outcome, images: str) -> dict[str, Any]:
    """AP of every class by every method: names of the methods, and a row per class."""
    tables = {name: ap_rows(stages[images]) for name, stages in outcome.evaluations.items()}
    by_class: dict[str, dict[str, Any]] = {}
    for name, rows in tables.items():
        for row in rows:
            one = by_class.setdefault(
                row["class"],
                {"label": row["class"], "images": int(row["positives"]), "values": {}},
            )
            one["values"][name] = float(row["AP/merged"]) if row["AP/merged"] else None
    ordered = sorted(by_class.values(), key=lambda one: (-one["images"], one["label"]))
    return {"methods": list(tables), "rows": ordered}


def loss_of(fitted: Stage) -> str:
    """What a trained state's loss is called, as its settings name it; empty if they name none."""
    settings = fitted.manifest["parameters"].get("settings", {})
    return str(settings.get("loss", ""))


def learning_explained(outcome: Outcome, methods: Sequence[str]) -> str:
    """The sentence beside the curves of training."""
    losses = {name: loss_of(outcome.fitted[name]) for name in methods}
    told = [f"{name}: {loss}" for name, loss in losses.items() if loss]
    named = f" ({', '.join(told)})" if told else ""
    return (
        f"The loss that training lowers{named}, mean over an epoch's steps, and the step size by "
        "which it is lowered."
    )


def learned_from(profile: Profile, outcome: Outcome) -> tuple[int, int]:
    """Captions and labelled images that the headline method learned from, or what it builds on.

    Captions that were chosen, not held back, no template among them.
    """
    captions = labelled = 0
    for name in _with_parts(profile, profile.headline_method):
        source, counts = method_class(name).learns_from, outcome.fitted[name].counts
        if source == "labelled images":
            labelled = max(labelled, counts.get("images", 0))
        if source == "captions" and outcome.choice:
            chosen = outcome.choice.counts["captions/selected"]
            captions = max(captions, chosen - counts.get("captions/held_out", 0))
    return captions, labelled


def _with_parts(profile: Profile, name: str) -> list[str]:
    inner = [_with_parts(profile, part.name) for part in profile.method(name).parts]
    return [name, *(each for names in inner for each in names)]
