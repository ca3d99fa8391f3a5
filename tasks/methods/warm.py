"""Warm starts: a night's training begins at the last night's weights, where a method can.

A file per profile and method says which fit was the last, what it learned from, and which it began
at itself. So a fit of the same captions begins where it did before, and is found finished; one of
other captions begins at the last. What the weights are is part of a fit's key.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from models.lazily import lazily
from tasks.errors import InputError
from tasks.methods.state import CARD, read_state
from tasks.workspace import find_stage, home, locked, write_whole

with lazily():
    import torch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from models.method import Learner
    from tasks.workspace import Stage

FOLDER: Final = "refresh"
STAGE: Final = "fit"


def last_fit(profile: str, method: str, terms: str, lesson: str) -> Stage | None:
    """The finished fit that a new one begins at; None where it begins anew.

    Args:
        profile: its name.
        method: its name.
        terms: tells settings, seed and backbone; a fit on other terms is no start.
        lesson: digest of what is learned from.

    """
    known = _read(_record(profile, method))
    if known.get("terms") != terms:
        return None
    key = known["start"] if known["lesson"] == lesson else known["fit"]
    if key is None:
        return None
    try:
        return find_stage(STAGE, key)
    except InputError:
        # it was removed to make room
        return None


def remember(
    profile: str, method: str, terms: str, lesson: str, fitted: Stage, start: Stage | None
) -> None:
    """Write down a finished fit as the last."""
    record = _record(profile, method)
    record.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "terms": terms,
        "lesson": lesson,
        "fit": fitted.key,
        "start": start.key if start else None,
    }
    with locked(record.with_suffix(".lock")):
        write_whole(record, json.dumps(content, indent=1) + "\n")


def begin_at(learner: Learner, start: Stage, classes: Sequence[str]) -> None:
    """Give a learner the weights of a fit; a class that is new has its own start."""
    card = json.loads(start.file(CARD).read_text(encoding="utf-8"))
    place = {label: row for row, label in enumerate(card["classes"])}
    rows = torch.tensor([place.get(label, -1) for label in classes])
    learner.start_from(read_state(start.folder), rows)


def _record(profile: str, method: str) -> Path:
    return home() / FOLDER / f"{profile}.{method}.json"


def _read(record: Path) -> dict[str, Any]:
    """A record's content; a broken one is none."""
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    whole = isinstance(found, dict) and {"terms", "lesson", "fit", "start"} <= set(found)
    return found if whole else {}
