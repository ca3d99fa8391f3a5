"""The chart of classes that captions name together."""

from collections.abc import Sequence
from typing import Any, Final

from tasks import pages
from tasks.pages import pictures

MOST: Final = 20


def pairs_chart(rows: Sequence[tuple[str, str, int]]) -> list[dict[str, Any]]:
    """Title, explanation and picture of the most frequent pairs; none where no caption names two.

    Args:
        rows: of sql/report/co_occurrence.sql.

    """
    pairs = [(count, one, other) for one, other, count in rows if one < other]
    most = sorted(pairs, key=lambda pair: (-pair[0], pair[1:]))[:MOST]
    if not most:
        return []
    count, one, other = most[0]
    told = f"Most often {one} and {other}: {count:,} caption{'s' * (count != 1)}."
    svg = pictures.pairs_by_count(
        [f"{one} + {other}" for _, one, other in most], [count for count, _, _ in most]
    )
    return [
        {
            "title": "Classes named together",
            "explanation": f"Captions that name two classes at once. {told}",
            "svg": pages.picture(svg, f"Captions by pair of classes. {told}"),
        }
    ]
