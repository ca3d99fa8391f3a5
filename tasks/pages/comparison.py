"""Runs side by side as a page of its own."""

from collections.abc import Sequence
from typing import Final

from tasks import pages
from tasks.pages import pictures
from tasks.results.compare import Candidate, Verdict, differing, moved

MOVED: Final = 8
LARGEST_CHART: Final = 60


def page(candidates: Sequence[Candidate], found: Sequence[Verdict]) -> str:
    """The comparison as a page of its own."""
    sections = []
    for verdict in found:
        rows = moved(verdict.images, candidates)
        # many classes would make a chart nobody reads: those that moved most, either way
        drawn = sorted(rows, key=lambda row: -abs(row[3]))[:LARGEST_CHART]
        chart = pictures.ap_by_class(
            [row[0] for row in drawn],
            [row[1] for row in drawn],
            [row[2] for row in drawn],
            ("first run", "last run"),
        )
        better = sum(row[3] > 0 for row in rows)
        told = f"AP by class: {better} of {len(rows)} are better in {candidates[-1].name}"
        sections.append(
            {
                "verdict": verdict,
                "chart": pages.picture(chart, told),
                "gains": [row for row in rows[:MOVED] if row[3] > 0],
                "losses": [row for row in rows[::-1][:MOVED] if row[3] < 0],
            }
        )
    names = [candidate.name for candidate in candidates]
    settings = differing(candidates)
    return pages.render("compare.html", names=names, sections=sections, settings=settings)
