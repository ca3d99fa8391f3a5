"""All settings of a profile in words: name, form, default and what it does."""

import json
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from tasks.profile import Profile

WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false"}


@dataclass(frozen=True)
class Told:
    """One setting, as a line of help tells it."""

    name: str
    """Dotted, as `--set` takes it; a list's first entry has the number 0."""
    form: str
    default: str
    sentence: str


def settings_told(group: type[BaseModel] = Profile, prefix: str = "") -> Iterator[Told]:
    """Every setting of a group of settings, in its order, those of inner groups in their place."""
    for name, field in group.model_fields.items():
        inner, is_list = _group_in(field.annotation)
        if inner is not None:
            yield from settings_told(inner, f"{prefix}{name}.{'0.' if is_list else ''}")
            continue
        default = field.get_default(call_default_factory=True, validated_data={})
        is_asked = default is PydanticUndefined
        told = "needed" if is_asked else json.dumps(default, ensure_ascii=False, default=str)
        yield Told(f"{prefix}{name}", _form(field.annotation), told, field.description or "")


def _group_in(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The group of settings that a type is made of, and whether it is a list of such."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    for part in get_args(annotation):
        inner, _ = _group_in(part)
        if inner is not None:
            return inner, get_origin(annotation) in (list, tuple)
    return None, False


def _form(annotation: Any) -> str:
    """A type in words: `text`, `whole number or null`, `one of here, fit/gpu`."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation is type(None):
        return "null"
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}" if len(parts) > 1 else str(parts[0])
    if origin in (Union, types.UnionType):
        return " or ".join(map(_form, parts))
    if origin in (list, tuple):
        inner = dict.fromkeys(_form(part) for part in parts if part is not Ellipsis)
        return f"list of {' or '.join(inner)}"
    if origin is dict:
        return "table"
    if origin is not None and parts:
        return _form(parts[0])
    return WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))
