"""A finished study as a page: its question, a figure, a table."""

from collections.abc import Sequence
from typing import Any

from models.method import Study
from tasks import pages
from tasks.pages import pictures
from tasks.profile import Profile
from tasks.results.studies import Lead, Row, published


def page_of(
    study: Study, profile: Profile, rows: Sequence[Row], leads: Sequence[Lead], command: str
) -> str:
    """The study as a page: its question, a figure and a table, or those of each image set."""
    sets = list(dict.fromkeys(row.images for row in rows))
    methods = list(dict.fromkeys(row.method for row in rows))
    values = {name: [row.values for row in rows if row.images == name] for name in sets}
    best = {name: max(row.mean for row in rows if row.images == name) for name in sets}
    told = "; ".join(f"{row.images}, {row.variant}: {row.mean:.1f}" for row in rows)
    several = len(methods) > 1
    return pages.render(
        "study.html",
        study=study,
        profile=profile,
        rows=rows,
        best=best,
        command=command,
        published=published(study, profile.name),
        sets=[_of_set(study, name, rows, leads) for name in sets] if several else [],
        figure=""
        if several
        else pages.picture(
            pictures.study(list(study.variants), values, study.axis), f"mAP by {study.axis}: {told}"
        ),
    )


def _of_set(study: Study, name: str, rows: Sequence[Row], leads: Sequence[Lead]) -> dict[str, Any]:
    """A figure with a line per method, and a row of a table for each; leads over their parts."""
    of_parts: dict[str, list[Lead]] = {}
    for lead in leads:
        if lead.images == name:
            of_parts.setdefault(lead.method, []).append(lead)
    of_method: dict[str, list[Row]] = {}
    for row in rows:
        if row.images == name:
            of_method.setdefault(row.method, []).append(row)
    means = {method: [(row.mean, row.spread) for row in of] for method, of in of_method.items()}
    best = [max(of[at].mean for of in of_method.values()) for at in range(len(study.variants))]
    told = "; ".join(
        f"{method} {', '.join(f'{mean:.1f}' for mean, _ in of)}" for method, of in means.items()
    )
    figure = pictures.curves(f"study-{name}", list(study.variants), means, study.axis)
    return {
        "name": name,
        "classes": next(row.classes for row in rows if row.images == name),
        "methods": of_method,
        "best": best,
        "leads": of_parts,
        "seeds": max(len(row.values) for row in rows),
        "figure": pages.picture(figure, f"{name}, mAP by {study.axis}: {told}"),
    }
