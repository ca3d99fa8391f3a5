"""The command `compare`: runs side by side, printed and as a page; it runs no stage."""

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tasks.errors import InputError
from tasks.pages.comparison import page
from tasks.results.compare import (
    Candidate,
    Verdict,
    differing,
    find_candidates,
    moved,
    verdicts,
)
from tasks.workspace import home, write_whole


def compare(names: Sequence[str]) -> Path:
    """Compare finished runs, print what came out and return the path of a page of it.

    Raises:
        InputError: a run is not there, or they have no image set in common.

    """
    candidates = find_candidates(names)
    found = verdicts(candidates)
    if not found:
        raise InputError("these runs have no image set in common")
    console = Console()
    _print_settings(console, candidates)
    for verdict in found:
        _print_verdict(console, verdict)
        _print_moved(console, verdict.images, candidates)
    key = hashlib.sha256(" ".join(each.run_id for each in candidates).encode()).hexdigest()[:12]
    path = home() / "compare" / f"{key}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, page(candidates, found))
    console.print(f"\nsee it: {path}", soft_wrap=True)
    return path


def _print_settings(console: Console, candidates: Sequence[Candidate]) -> None:
    table = Table("setting", *(candidate.name for candidate in candidates))
    for name, values in differing(candidates).items():
        table.add_row(name, *values)
    if table.row_count:
        console.print(table)
    else:
        console.print("all settings are the same")


def _print_verdict(console: Console, verdict: Verdict) -> None:
    table = Table(
        "run", "mAP", "95 %", "over classes", "above the first", "95 %", title=verdict.images
    )
    for score in verdict.scores:
        row = [score.name, f"{score.value:.2f}", f"{score.low:.2f} to {score.high:.2f}"]
        row.append(score.classes)
        if score.gain is not None:
            row += [f"{score.gain:+.2f}", f"{score.gain_low:+.2f} to {score.gain_high:+.2f}"]
        table.add_row(*row)
    console.print(table)
    console.print(verdict.winner, soft_wrap=True)


def _print_moved(console: Console, images: str, candidates: Sequence[Candidate]) -> None:
    rows = moved(images, candidates)
    for title, shown in (("gain", rows[:5]), ("lose", rows[::-1][:5])):
        told = [
            f"{label} {gain:+.1f}"
            for label, _, _, gain in shown
            if (gain > 0 if title == "gain" else gain < 0)
        ]
        if told:
            console.print(f"classes that {title} most: {', '.join(told)}", soft_wrap=True)


def main() -> None:
    """`python -m flows.compare RUN RUN…`."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.compare",
        description="Runs side by side: settings that differ, metrics with intervals, classes.",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="MLflow id or its first characters, name, latest, latest~1 (the one before), …",
    )
    arguments = parser.parse_args()
    if len(arguments.runs) < 2:
        parser.error("expected two runs or more, for example: latest~1 latest")
    try:
        compare(arguments.runs)
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
