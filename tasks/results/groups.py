"""What the methods of a run learned from, so that nobody takes one kind for another."""

from collections.abc import Set

from tasks.profile import Profile
from tasks.results.outcome import Outcome

UNTRAINED = "nothing"


def groups_of(profile: Profile, outcome: Outcome) -> dict[str, list[str]]:
    """Methods by what they learned from, in words: nothing first, then captions, labelled images.

    How many images, and of how many shots, is what the stages say that were learned from.
    """
    told = {name: _told(profile, outcome, name) for name in outcome.evaluations}
    groups: dict[str, list[str]] = {}
    for name in sorted(told, key=lambda name: _rank(profile.taught_by(name))):
        groups.setdefault(told[name], []).append(name)
    return groups


def _rank(sources: Set[str]) -> tuple[bool, bool]:
    return "labelled images" in sources, "captions" in sources


def _told(profile: Profile, outcome: Outcome, name: str) -> str:
    """For example `captions and 64 labelled images (4 shots)`."""
    sources = profile.taught_by(name)
    found = ["captions"] if "captions" in sources else []
    if "labelled images" in sources:
        images = max(_images(profile, outcome, name))
        found.append(f"{images:,} labelled images{_protocol(profile)}".replace(",", "\u202f"))
    return " and ".join(found) or UNTRAINED


def _images(profile: Profile, outcome: Outcome, name: str) -> list[int]:
    """Labelled images that a method and those it builds on learned from, by their manifests."""
    counts = [outcome.fitted[name].counts.get("images", 0)]
    for part in profile.method(name).parts:
        counts += _images(profile, outcome, part.name)
    return counts


def _protocol(profile: Profile) -> str:
    asked = profile.labelled
    if asked is None:
        return ""
    told = []
    if asked.shots is not None:
        told.append("1 shot" if asked.shots == 1 else f"{asked.shots} shots")
    if asked.known < 1:
        told.append(f"{100 * asked.known:g} % of labels known")
    return f" ({', '.join(told)})" if told else ""
