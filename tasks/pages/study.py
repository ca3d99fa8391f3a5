"""A finished study as a page: its question, a figure, a table."""

from collections.abc import Sequence

from models.method import Study
from tasks import pages
from tasks.pages import pictures
from tasks.profile import Profile
from tasks.results.studies import Row


def page_of(study: Study, profile: Profile, rows: Sequence[Row], command: str) -> str:
    """The study as a page: its question, a figure, a table."""
    sets = list(dict.fromkeys(row.images for row in rows))
    values = {name: [row.values for row in rows if row.images == name] for name in sets}
    best = {name: max(row.mean for row in rows if row.images == name) for name in sets}
    told = "; ".join(f"{row.images}, {row.variant}: {row.mean:.1f}" for row in rows)
    return pages.render(
        "study.html",
        study=study,
        profile=profile,
        rows=rows,
        best=best,
        command=command,
        figure=pages.picture(
            pictures.study(list(study.variants), values, study.axis), f"mAP by {study.axis}: {told}"
        ),
    )
