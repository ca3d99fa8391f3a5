"""One suite of checks for every method, ours and installed ones."""

import pytest
from pydantic import Field

from models.method import Method, MethodSettings
from models.methods.zero_shot import ZeroShot
from tasks.catalogue import catalogue
from tasks.methods import checks


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", list(catalogue()))
def test_every_method_passes_every_check(name: str, check: checks.Check) -> None:
    check(catalogue()[name])


class Odd(ZeroShot):
    """A method with a fault in each respect, and no example."""

    class Settings(MethodSettings):
        unexplained: int = Field(0)

    name = "Odd One"
    needs = frozenset()

    def score_images(self, state, features, kappa):  # type: ignore[no-untyped-def]
        scores = super().score_images(state, features, kappa)
        # an image is scored by where it stands in the batch
        scores["merged"] = scores["merged"] + scores["merged"].mean(dim=0) * 3
        return scores


@pytest.mark.parametrize(
    "check",
    [
        checks.says_what_it_is,
        checks.an_image_alone_scores_as_in_a_batch,
        checks.it_touches_what_it_needs_alone,
        checks.its_example_runs,
    ],
    ids=lambda check: check.__name__,
)
def test_a_check_finds_its_fault(check: checks.Check) -> None:
    odd: type[Method] = Odd
    with pytest.raises(AssertionError):
        check(odd)
