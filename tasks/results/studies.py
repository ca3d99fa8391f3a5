"""Studies: settings varied, everything else as the profile has it, by one method or several."""

from __future__ import annotations

import csv
import functools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from models.lazily import lazily
from models.method import Study
from models.metrics import interval
from tasks.catalogue import catalogue
from tasks.errors import InputError
from tasks.profile import Profile
from tasks.results.evaluate import classes_told, paired_maps
from tasks.results.outcome import Outcome

with lazily():
    import torch

PUBLISHED: Final = Path(__file__).with_name("published.csv")
ORDER: Final = ("nothing", "captions", "labelled images")
"""What methods learn from, as they stand in tables; what is none of these comes last."""
ALL_IMAGES: Final = "mAP_all_images/merged"
Maps = Mapping[tuple[str, str], float]
"""Merged mAP, percent, by image set and method."""
Leads = Mapping[tuple[str, str, str], tuple[float, "torch.Tensor"]]
"""How far a method's mAP is above that of one that it builds on, by image set, method and part: as
measured, and on resamples of the images [R]."""


@functools.cache
def studies() -> dict[str, tuple[Study, tuple[str, ...]]]:
    """All studies by name, each with the methods that name it, as tables have them."""
    found: dict[str, tuple[Study, tuple[str, ...]]] = {}
    # backwards by name, which puts prompts behind caches: the last of a kind is what others blend
    names = sorted(catalogue(), reverse=True)
    for name in sorted(names, key=lambda name: _place(catalogue()[name].learns_from)):
        for study in catalogue()[name].studies:
            _, others = found.get(study.name, (study, ()))
            found[study.name] = (study, (*others, name))
    return found


def _place(learns_from: str) -> int:
    return ORDER.index(learns_from) if learns_from in ORDER else len(ORDER)


@dataclass(frozen=True)
class Row:
    """MAP of one variant and method on one image set: a value per seed, percent, merged."""

    images: str
    method: str
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


@dataclass(frozen=True)
class Lead:
    """How far a method is above the better of those that it builds on, in points of mAP."""

    images: str
    method: str
    variant: str
    over: str
    gain: float
    low: float
    high: float
    """95 % interval: images resampled, both methods alike, mean over seeds."""


def chosen_studies(names: Sequence[str]) -> list[Study]:
    """Studies by name, or all of them; InputError for one that is not there."""
    known = studies()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"study {unknown[0]!r} is unknown: there are {', '.join(known)}")
    return [known[name][0] for name in names or known]


def settings_of(study: Study, variant: str, seed: int) -> dict[str, Any]:
    """Changes to the profile for one run of a study: its methods alone, nothing to compare to."""
    _, methods = studies()[study.name]
    return {"run": list(methods), "headline": None, "seed": seed, **study.variants[variant]}


def check_study(study: Study, profile: Profile) -> None:
    """See that the profile has what the study varies, and what it measures on.

    Raises:
        InputError: labelled images are varied, and it has none; or no label is known.

    """
    if not profile.measured:
        raise InputError(
            f"profile {profile.name}: a study compares mAPs, which takes known labels; expected "
            "[[images]] with `annotations`"
        )
    varied = {name for changes in study.variants.values() for name in changes}
    if profile.labelled is None and any(name.startswith("labelled.") for name in varied):
        raise InputError(
            f"study '{study.name}' varies labelled images, and profile '{profile.name}' has no "
            "image set `labelled`; add one, with true labels"
        )


def maps_of(profile: Profile, outcome: Outcome) -> Maps:
    """Merged mAP, percent, of every method of a run, also on all images where some count."""
    found = {}
    for method in profile.run:
        for name, stage in outcome.evaluations[method].items():
            found[name, method] = stage.figures["mAP/merged"]
            if ALL_IMAGES in stage.figures:
                found[f"{name}, all images", method] = stage.figures[ALL_IMAGES]
    return found


def leads_of(profile: Profile, outcome: Outcome) -> Leads:
    """Every method of a run that builds on others, against each of those."""
    found = {}
    for method in profile.run:
        parts = [part.name for part in profile.method(method).parts]
        for images, stage in outcome.evaluations[method].items() if parts else ():
            stages = [stage, *(outcome.evaluations[part][images] for part in parts)]
            maps = [each.figures["mAP/merged"] for each in stages]
            own, *others = paired_maps(stages)
            for part, value, resampled in zip(parts, maps[1:], others, strict=True):
                found[images, method, part] = (maps[0] - value, own - resampled)
    return found


def leads_over_best(found: Mapping[str, Sequence[Leads]]) -> list[Lead]:
    """Of each variant's leads, seed by seed, the least of each method: that over its best part."""
    leads: list[Lead] = []
    for variant, seeds in found.items():
        least: dict[tuple[str, str], Lead] = {}
        for images, method, part in seeds[0]:
            of_seeds = [of[images, method, part] for of in seeds]
            gain = statistics.fmean(measured for measured, _ in of_seeds)
            low, high = interval(torch.stack([each for _, each in of_seeds]).mean(dim=0), gain)
            lead = Lead(images, method, variant, part, gain, low, high)
            least[images, method] = min(
                lead, least.get((images, method), lead), key=lambda each: each.gain
            )
        leads += least.values()
    return leads


def classes_of(profile: Profile, outcome: Outcome) -> dict[str, str]:
    """Classes that an mAP is the mean over, by image set."""
    found = outcome.evaluations[profile.run[0]]
    told = {name: classes_told(stage.figures) for name, stage in found.items()}
    return told | {f"{name}, all images": classes for name, classes in told.items()}


def table_of(
    study: Study, found: Mapping[str, Sequence[Maps]], classes: Mapping[str, str]
) -> list[Row]:
    """A row per image set, method and variant from each variant's mAPs, seed by seed.

    Where each run had one method, that may be another one in each variant, and has no name here.
    """
    if all(len({method for _, method in seeds[0]}) == 1 for seeds in found.values()):
        found = {variant: [_unnamed(maps) for maps in seeds] for variant, seeds in found.items()}
    places = list(next(iter(found.values()))[0])
    sets = list(dict.fromkeys(images for images, _ in places))
    return [
        Row(images, method, variant, tuple(maps[place] for maps in found[variant]), classes[images])
        for place in sorted(places, key=lambda place: sets.index(place[0]))
        for images, method in [place]
        for variant in study.variants
    ]


def _unnamed(maps: Maps) -> Maps:
    return {(images, ""): value for (images, _), value in maps.items()}


def published(study: Study, profile: str) -> dict[str, dict[str, float]]:
    """Published mAP in percent by row and variant, where the profile is a paper's."""
    found: dict[str, dict[str, float]] = {}
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            if (line["study"], line["profile"]) == (study.name, profile):
                found.setdefault(line["row"], {})[line["variant"]] = float(line["mAP"])
    return found
