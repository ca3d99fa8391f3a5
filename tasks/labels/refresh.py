"""What has moved in a profile's captions since the last refresh, and since the last training.

The record of a refresh is a file per profile: which caption files there were, by content, and how
many captions named each class. Slow drift adds up: what decides on a new training is the distance
to the captions of the last one that finished, not to last night's. One that was asked for and did
not finish is asked for again, unless it is still under way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.corpus.readers import is_composed
from tasks.files import home, is_writable, locked, write_whole
from tasks.integrity import DamagedError, sealed, set_aside, unsealed
from tasks.processes import is_running, mark_of
from tasks.workspace import Stage

if TYPE_CHECKING:
    from tasks.labels.vocabulary import Vocabulary
    from tasks.profile import Profile

LOG = logging.getLogger("tai")
FOLDER: Final = "refresh"
SHOWN: Final = 20


@dataclass(frozen=True)
class Part:
    """One caption file: its content, how many captions it gave, and how many name each class."""

    file: str
    digest: str
    captions: int
    classes: dict[str, int]


@dataclass(frozen=True)
class Movement:
    """From one set of caption files to another."""

    new: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: tuple[str, ...]
    captions_before: int
    captions_after: int
    share: float
    """Captions in new, changed and removed files over all that were there before or are now."""
    drift: float
    """Jensen-Shannon distance of the classes' shares of all labels, 0 (the same) to 1."""
    classes: dict[str, tuple[int, int]]
    """Captions that name each class, before and after."""

    @property
    def is_none(self) -> bool:
        """True if every file is as it was."""
        return not (self.new or self.changed or self.removed)


@dataclass(frozen=True)
class Refresh:
    """One refresh: what moved since the last, since the last training, and whether to train."""

    since_last: Movement
    since_training: Movement
    trains: bool


@task(name="refresh", cache_policy=NO_CACHE, task_run_name="refresh")
def publish_refresh(
    profile: Profile,
    vocabulary: Vocabulary,
    labelled: Sequence[tuple[Path, Stage, Stage]],
    is_under_way: Callable[[str], bool] = bool,
) -> Refresh:
    """Record which caption files there are now, and say what moved."""
    return publish(profile, vocabulary.digest, parts_of(labelled), is_under_way)


def parts_of(labelled: Sequence[tuple[Path, Stage, Stage]]) -> list[Part]:
    """All caption files; composed captions follow from the others."""
    return [
        part_of(path, corpus, labels)
        for path, corpus, labels in labelled
        if not is_composed(corpus)
    ]


def part_of(path: Path, corpus: Stage, labels: Stage) -> Part:
    """A caption file as its finished stages describe it."""
    parameters = corpus.manifest["parameters"]
    return Part(
        f"{parameters['source']}/{parameters['split']}: {path}",
        str(corpus.manifest["inputs"]["file"]),
        corpus.counts["captions/kept"],
        dict(labels.figures["classes"]),
    )


def movement(before: Sequence[Part], after: Sequence[Part]) -> Movement:
    """What moved between two sets of caption files; contents decide, not names or times."""
    old, new = ({part.file: part for part in parts} for parts in (before, after))
    same = {file for file in new if file in old and old[file].digest == new[file].digest}
    moved = [part.captions for part in (*before, *after) if part.file not in same]
    everything = sum(moved) + sum(new[file].captions for file in same)
    counts = _class_counts(before), _class_counts(after)
    classes = sorted({*counts[0], *counts[1]})
    return Movement(
        new=tuple(file for file in new if file not in old),
        changed=tuple(file for file in new if file in old and file not in same),
        removed=tuple(file for file in old if file not in new),
        unchanged=tuple(file for file in new if file in same),
        captions_before=sum(part.captions for part in before),
        captions_after=sum(part.captions for part in after),
        share=sum(moved) / everything if everything else 0.0,
        drift=jensen_shannon(counts[0], counts[1]),
        classes={label: (counts[0].get(label, 0), counts[1].get(label, 0)) for label in classes},
    )


def jensen_shannon(one: Mapping[str, int], other: Mapping[str, int]) -> float:
    """Jensen-Shannon distance (base 2) of two counts' distributions.

    The square root of the mean Kullback-Leibler divergence from each to their average. Between
    nothing and something it is 1, between nothing and nothing 0.
    """
    labels = sorted({*one, *other})
    counts = np.array([[float(each.get(label, 0)) for label in labels] for each in (one, other)])
    totals = counts.sum(axis=1, keepdims=True) if labels else np.zeros((2, 1))
    if not totals.all():
        return float(totals.any())
    shares = counts / totals
    middle = np.broadcast_to(shares.mean(axis=0), shares.shape)
    there = shares > 0
    divergence = (shares[there] * np.log2(shares[there] / middle[there])).sum() / 2
    return float(np.sqrt(np.clip(divergence, 0, 1)))


def publish(
    profile: Profile,
    vocabulary: str,
    parts: Sequence[Part],
    is_under_way: Callable[[str], bool] = bool,
) -> Refresh:
    """Record a finished refresh and say what moved.

    Of two at once the second compares with what the first has recorded, and finds it asking, so
    that a training is started once.

    Args:
        profile: its `refresh` says from when on to train.
        vocabulary: the vocabulary's digest; another one counts as a change of all files.
        parts: all caption files of now.
        is_under_way: whether the training that was asked for, by its id, goes on.

    """
    with _record(profile) as record:
        last, trained = (
            [Part(**part) for part in record.get(of, [])] for of in ("last", "trained")
        )
        now = _with_vocabulary(parts, vocabulary)
        since_training = movement(trained, now)
        asked = record.get("asked", {})
        asks = asked.get("by", "")
        waits = asks not in ("", mark_of()) and bool(is_running(asks))
        waits = waits or bool(asked.get("run") and is_under_way(asked["run"]))
        trains = _is_enough(profile, since_training) and not waits
        record["last"] = [asdict(part) for part in now]
        if trains:
            record["asked"] = {"by": mark_of(), "run": ""}
        return Refresh(movement(last, now), since_training, trains)


def note_asked(profile: Profile, run: str) -> None:
    """Record the id of the training that a refresh has asked for."""
    with _record(profile) as record:
        record["asked"] = {"by": mark_of(), "run": run}


def note_training(
    profile: Profile, vocabulary: str, labelled: Sequence[tuple[Path, Stage, Stage]]
) -> None:
    """Record what a training that has finished started from."""
    parts = parts_of(labelled)
    with _record(profile) as record:
        record["trained"] = [asdict(part) for part in _with_vocabulary(parts, vocabulary)]
        record.pop("asked", None)


@contextmanager
def _record(profile: Profile) -> Iterator[dict[str, Any]]:
    """A profile's record, to be changed; nobody else does meanwhile. A read-only home keeps its."""
    file = home() / FOLDER / f"{profile.name}.json"
    if not is_writable():
        yield _read(file)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with locked(file.with_suffix(".lock")):
        record = _read(file)
        yield record
        write_whole(file, sealed(record))


def _read(file: Path) -> dict[str, Any]:
    """What a record says; one that is damaged is set aside, and says nothing."""
    if not file.exists():
        return {}
    try:
        return unsealed(file)
    except DamagedError as damage:
        aside = set_aside(file) if is_writable() else None
        what = "set aside, and " if aside else ""
        LOG.warning("%s; %sall captions count as new", damage, what)
        return {}


def _with_vocabulary(parts: Sequence[Part], vocabulary: str) -> list[Part]:
    """Labels depend on the vocabulary as well as on the file."""
    return [replace(part, digest=f"{part.digest}/{vocabulary}") for part in parts]


def _is_enough(profile: Profile, moved: Movement) -> bool:
    """True if the profile's thresholds say that prompts should be trained anew."""
    limits = profile.refresh
    return not moved.is_none and (
        (limits.train_at_share is not None and moved.share >= limits.train_at_share)
        or (limits.train_at_drift is not None and moved.drift >= limits.train_at_drift)
    )


def _class_counts(parts: Sequence[Part]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for part in parts:
        for label, captions in part.classes.items():
            counts[label] = counts.get(label, 0) + captions
    return counts


def metrics_of(refresh: Refresh) -> dict[str, float]:
    """A refresh in numbers, as MLflow logs them."""
    moved = refresh.since_last
    counts: dict[str, Any] = {
        "files/new": len(moved.new),
        "files/changed": len(moved.changed),
        "files/removed": len(moved.removed),
        "files/unchanged": len(moved.unchanged),
        "captions/all": moved.captions_after,
        "captions/more": moved.captions_after - moved.captions_before,
        "moved/share": moved.share,
        "moved/drift": moved.drift,
        "moved_since_training/share": refresh.since_training.share,
        "moved_since_training/drift": refresh.since_training.drift,
    }
    return counts | {f"captions_of/{label}": after for label, (_, after) in moved.classes.items()}


def markdown_of(refresh: Refresh) -> str:
    """A refresh in words and a table of the classes that moved most."""
    moved, trained = refresh.since_last, refresh.since_training
    lines = [
        f"**{moved.captions_after:,} captions**, {moved.captions_before:,} before. Files: "
        f"{len(moved.new)} new, {len(moved.changed)} changed, {len(moved.removed)} removed, "
        f"{len(moved.unchanged)} as they were.",
        "",
        f"Moved since the last refresh: {moved.share:.1%} of captions, class drift "
        f"{moved.drift:.3f}. Since the last training that finished: {trained.share:.1%}, "
        f"{trained.drift:.3f}. {'Enough to train anew.' if refresh.trains else ''}",
    ]
    for title, files in (
        ("New", moved.new),
        ("Changed", moved.changed),
        ("Removed", moved.removed),
    ):
        shown = [f"`{file.replace('`', '')}`" for file in files[:SHOWN]]
        rest = [f"and {len(files) - SHOWN:,} more"] if len(files) > SHOWN else []
        lines += ["", f"{title}: {', '.join(shown + rest)}"] if files else []
    rows = [(label, *counts) for label, counts in moved.classes.items() if counts[0] != counts[1]]
    if rows:
        rows.sort(key=lambda row: (-abs(row[2] - row[1]), row[0]))
        lines += ["", "| class | before | now | more |", "|---|--:|--:|--:|"]
        for label, before, after in rows[:SHOWN]:
            name = escape(label).replace("|", "&#124;")
            lines.append(f"| {name} | {before:,} | {after:,} | {after - before:+,} |")
    return "\n".join(lines) + "\n"
