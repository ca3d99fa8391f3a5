"""Settings by dotted name (`methods.tai.epochs`, `sources.0.path`): read, set, laid out flat."""

import json
from collections.abc import Mapping
from typing import Any

from tasks.errors import InputError


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level of dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for position, item in enumerate(value):
                flat |= flatten(item, f"{prefix}{key}.{position}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def set_value(values: dict[str, Any], dotted: str, value: Any) -> None:
    """Set a field by dotted name; numbers step into lists (`sources.0.path`)."""
    *steps, last = dotted.split(".")
    place: Any = values
    try:
        for step in steps:
            place = place[int(step)] if isinstance(place, list) else place.setdefault(step, {})
        if isinstance(place, list):
            place[int(last)] = value
        else:
            place[last] = value
    except (IndexError, ValueError, AttributeError, TypeError):
        raise InputError(f"setting '{dotted}': no such field in the profile") from None


def parse_setting(text: str) -> tuple[str, Any]:
    """`name=value` of a command line; the value is JSON where it reads as JSON, else text."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise InputError(f"--set {text}: expected name=value, for example seed=1")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
