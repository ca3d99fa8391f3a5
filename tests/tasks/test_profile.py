"""Errors of settings: the nearest name for an unknown one, the form for a value of another type."""

from typing import Any

import pytest

from tasks.errors import InputError
from tasks.profile import Profile, load_profile


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("sed", 1, "did you mean 'seed'?"),
        ("methods.tai-dpt.epoch", 3, "did you mean 'methods.tai-dpt.epochs'?"),
        ("methods.tai-dtp.epochs", 3, "did you mean 'methods.tai-dpt'?"),
        ("images.0.fom", "coco", "did you mean 'images.0.form'?"),
        ("zzzz", 1, f"there are {', '.join(Profile.model_fields)}"),
        ("run", "tai-dpt", 'a valid list, for example ["tai-dpt"]'),
        ("seed", "a", 'a valid integer, unable to parse string as an integer, not "a"'),
        ("sources.0.form", "cocoo", "'coco', 'narratives', 'table' or 'composed', not \"cocoo\""),
    ],
)
def test_a_wrong_setting_is_told_what_would_be_right(setting: str, value: Any, told: str) -> None:
    with pytest.raises(InputError) as caught:
        load_profile("demo", {setting: value})
    (sentence,) = str(caught.value).splitlines()
    assert told in sentence


def test_a_name_near_every_field_is_answered_with_that_field() -> None:
    for name in Profile.model_fields:
        with pytest.raises(InputError, match=f"did you mean '{name}'"):
            load_profile("demo", {f"{name}x": 1})
