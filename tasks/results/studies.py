"""Studies: one setting of a method varied, everything else as the profile has it."""

import functools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.method import Study
from tasks.catalogue import catalogue
from tasks.errors import InputError
from tasks.profile import Profile
from tasks.results.evaluate import classes_told
from tasks.results.outcome import Outcome


@functools.cache
def studies() -> dict[str, tuple[Study, str]]:
    """All methods' studies by name, each with the method that it is about."""
    return {
        study.name: (study, name)
        for name, method in catalogue().items()
        for study in method.studies
    }


@dataclass(frozen=True)
class Row:
    """MAP of one variant on one image set: a value per seed, percent, merged."""

    images: str
    variant: str
    values: tuple[float, ...]
    classes: str
    """Those that it is the mean over: `3 of 6`."""

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
    known = studies()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"study {unknown[0]!r} is unknown: there are {', '.join(known)}")
    return [known[name][0] for name in names or known]


def settings_of(study: Study, variant: str, seed: int) -> dict[str, Any]:
    """Changes to the profile for one run of a study: its method alone, nothing to compare to."""
    _, method = studies()[study.name]
    return {"run": [method], "headline": None, "seed": seed, **study.variants[variant]}


def maps_of(profile: Profile, outcome: Outcome) -> dict[str, float]:
    """Merged mAP, percent, by image set, of the run's method."""
    found = outcome.evaluations[profile.headline_method]
    return {name: stage.figures["mAP/merged"] for name, stage in found.items()}


def classes_of(profile: Profile, outcome: Outcome) -> dict[str, str]:
    """Classes that an mAP is the mean over, by image set."""
    found = outcome.evaluations[profile.headline_method]
    return {name: classes_told(stage.figures) for name, stage in found.items()}


def table_of(
    study: Study, found: Mapping[str, Sequence[Mapping[str, float]]], classes: Mapping[str, str]
) -> list[Row]:
    """A row per image set and variant from each variant's mAPs, seed by seed."""
    names = list(next(iter(found.values()))[0])
    return [
        Row(images, variant, tuple(of_seed[images] for of_seed in found[variant]), classes[images])
        for images in names
        for variant in study.variants
    ]
