"""The paper's studies: one setting varied, everything else as the profile has it."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tasks import pages
from tasks.errors import InputError
from tasks.pages import pictures
from tasks.profile import Profile
from tasks.results.outcome import Outcome


@dataclass(frozen=True)
class Study:
    """One question to the method, and the settings that answer it."""

    name: str
    question: str
    axis: str
    """What the variants are variants of."""
    variants: Mapping[str, Mapping[str, Any]]
    """Changes to the profile by dotted name, by the variant's name in tables and figures."""
    seeds: int
    """Seeds where one asks for none: more where the variants are near each other."""


STUDIES: Final = {
    study.name: study
    for study in (
        Study(
            "losses",
            "Which loss?",
            "loss",
            {loss: {"train.loss": loss} for loss in ("bce", "asl", "ranking")},
            1,
        ),
        Study(
            "captions",
            "How many captions, without template sentences?",
            "captions",
            {
                str(count): {"train.captions": count, "captions.templates": False}
                for count in (250, 1000, 4000)
            },
            3,
        ),
        Study(
            "prompts",
            "Global prompts alone, or local ones too?",
            "prompts",
            {"single": {"methods": ["tai"]}, "double": {"methods": ["tai-dpt"]}},
            1,
        ),
        Study(
            "sharing",
            "Contexts of all classes together, or each class's own?",
            "contexts",
            {
                "shared": {"train.class_specific": False},
                "class-specific": {"train.class_specific": True},
            },
            1,
        ),
        Study(
            "length",
            "How many context tokens?",
            "context tokens M",
            {str(count): {"train.contexts": count} for count in (2, 4, 8, 16, 32)},
            1,
        ),
        Study(
            "position",
            "Where does the class name stand?",
            "class name",
            {place: {"train.position": place} for place in ("front", "middle", "end")},
            1,
        ),
    )
}


@dataclass(frozen=True)
class Row:
    """MAP of one variant on one image set: a value per seed, percent, merged."""

    images: str
    variant: str
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over seeds."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float:
        """Standard deviation over seeds, 0 for one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0


def chosen_studies(names: Sequence[str]) -> list[Study]:
    """Studies by name, or all of them; InputError for one that is not there."""
    unknown = [name for name in names if name not in STUDIES]
    if unknown:
        raise InputError(f"study {unknown[0]!r} is unknown: there are {', '.join(STUDIES)}")
    return [STUDIES[name] for name in names or STUDIES]


def settings_of(study: Study, variant: str, seed: int) -> dict[str, Any]:
    """Changes to the profile for one run of a study: one learned method, nothing to compare to."""
    return {"methods": ["tai-dpt"], "seed": seed, **study.variants[variant]}


def maps_of(profile: Profile, outcome: Outcome) -> dict[str, float]:
    """Merged mAP, percent, by image set, of the run's learned method."""
    found = outcome.evaluations[profile.headline]
    # global prompts alone have no local branch to be merged with
    branch = "global" if profile.headline == "tai" else "merged"
    return {name: stage.figures[f"mAP/{branch}"] for name, stage in found.items()}


def table_of(study: Study, found: Mapping[str, Sequence[Mapping[str, float]]]) -> list[Row]:
    """A row per image set and variant from each variant's mAPs, seed by seed."""
    names = list(next(iter(found.values()))[0])
    return [
        Row(images, variant, tuple(of_seed[images] for of_seed in found[variant]))
        for images in names
        for variant in study.variants
    ]


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
