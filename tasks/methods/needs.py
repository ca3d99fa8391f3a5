"""What methods ask of the backbone, held against what it has: one sentence where it lacks it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.backbone.loading import why_not_causal
from tasks.catalogue import catalogue, method_class
from tasks.errors import InputError

if TYPE_CHECKING:
    from models.method import Method
    from tasks.profile import Profile


def check_needs(profile: Profile) -> None:
    """Stop before work starts if a method of the run cannot work with the profile's model.

    Raises:
        InputError: names what the model lacks, and the methods that do without it.

    """
    reason = why_not_causal(profile.backbone.model)
    for name in profile.run:
        check_tower(method_class(name), profile.backbone.model, reason)


def check_tower(method: type[Method], model: str, reason: str) -> None:
    """Refuse a method that tunes prompts, or looks at tokens, where the tower is not for that.

    Args:
        method: of the run.
        model: as the profile names it.
        reason: what keeps prompts from being tuned on it, as a clause; '' if nothing does.

    Raises:
        InputError: see `check_needs`.

    """
    if not (reason and _looks_inside(method)):
        return
    others = ", ".join(
        name
        for name, each in catalogue().items()
        if not _looks_inside(each) and each.learns_from != "other methods"
    )
    raise InputError(
        f"field 'run': {method.name} needs a causal text tower, and {model} has one {reason}; "
        f"expected a model such as RN50-quickgelu, or methods that tune no prompts: {others}"
    )


def _looks_inside(method: type[Method]) -> bool:
    """Whether a method needs more of a text tower than one vector for a text."""
    reads = method.learns_from == "captions" and method.reads == "tokens"
    return reads or "causal text tower" in method.needs
