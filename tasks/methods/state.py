"""A fitted method on disk: `state.safetensors`, and `card.json` that says what it is of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from safetensors import SafetensorError

from models.lazily import lazily
from models.method import Method, State
from tasks.catalogue import method_class
from tasks.errors import InputError
from tasks.integrity import check_folder
from tasks.workspace import write_whole

with lazily():
    from safetensors.torch import load, save

STATE: Final = "state.safetensors"
CARD: Final = "card.json"


@dataclass(frozen=True)
class Fitted:
    """A method with its settings and its state."""

    folder: Path
    method: Method
    classes: tuple[str, ...]
    card: Mapping[str, Any]

    @cached_property
    def state(self) -> State:
        """The tensors, read when first asked for; raises as `read_state` does."""
        return read_state(self.folder)


def write_state(state: State, card: Mapping[str, Any], folder: Path) -> None:
    """Write a state and its card; the same tensors give the same bytes."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    write_whole(folder / STATE, save(whole))
    shapes = {name: list(tensor.shape) for name, tensor in whole.items()}
    text = json.dumps({**card, "tensors": shapes}, indent=2, ensure_ascii=False)
    write_whole(folder / CARD, f"{text}\n")


def read_state(folder: Path) -> State:
    """The tensors in a folder.

    Raises:
        InputError: they are not there, or not whole.

    """
    path = folder / STATE
    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: expected a fitted method's tensors, as flows.tai leaves them: {error}"
        ) from error


def read_fitted(folder: Path) -> Fitted:
    """The method, settings and classes in a folder, and its state when that is asked for.

    Raises:
        InputError: the card is missing, damaged or not what it must be, or the method is not
            installed.

    """
    check_folder(folder)
    path = folder / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        name = str(card["method"])
        classes = tuple(str(label) for label in card["classes"])
    except OSError as error:
        raise InputError(
            f"{folder}: expected {STATE} and {CARD}, as flows.tai leaves them: {error}"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a fitted method's card: {error}") from error
    return Fitted(folder, _method(path, name, card), classes, card)


def _method(path: Path, name: str, described: Mapping[str, Any]) -> Method:
    """A method as `Method.described` told it, with what it builds on."""
    chosen = method_class(name)
    try:
        settings = chosen.Settings.model_validate(described["settings"])
        parts = [_method(path, str(part["method"]), part) for part in described.get("parts", [])]
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: field 'settings.{field}': {first['msg'].lower()}") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a fitted method's card: {error}") from error
    return chosen(settings, parts)
