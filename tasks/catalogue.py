"""All methods there are: one file each in `models/methods/`, and those of installed packages.

A package's method is an entry point of the group `tai_flows.methods` whose value is a class of
`models.method.Method`, as in `[project.entry-points."tai_flows.methods"]`, `mine = "package:Mine"`.
"""

import difflib
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Final

import models.methods
from models.method import Method
from tasks.errors import InputError

GROUP: Final = "tai_flows.methods"


@functools.cache
def catalogue() -> Mapping[str, type[Method]]:
    """Every method by its name, ours first.

    Raises:
        InputError: an installed package's method cannot be loaded, is none, or takes a name that
            is taken.

    """
    found = {method.name: method for method in _own()}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        method = _installed(entry)
        if found.setdefault(method.name, method) is not method:
            raise InputError(
                f"{_where(entry)}: there is a method {method.name!r} already; expected a name of "
                "its own"
            )
    return MappingProxyType(found)


def method_class(name: str) -> type[Method]:
    """A method by its name.

    Raises:
        InputError: there is none of that name.

    """
    known = catalogue()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"no method {name!r}: {hint}there are {', '.join(known)}")
    return known[name]


def group_of(method: type[Method]) -> str:
    """Name of the method whose group of settings it takes: its own, or that of the one it extends.

    '' where there are no settings.
    """
    owner = method.owner("Settings")
    return "" if owner is Method else owner.name


def _own() -> list[type[Method]]:
    modules = [
        importlib.import_module(f"{models.methods.__name__}.{each.name}")
        for each in pkgutil.iter_modules(models.methods.__path__)
    ]
    return [
        member
        for module in modules
        for member in vars(module).values()
        if inspect.isclass(member)
        and issubclass(member, Method)
        and member.__module__ == module.__name__
        and not inspect.isabstract(member)
    ]


def _installed(entry: EntryPoint) -> type[Method]:
    try:
        method = entry.load()
    # another's code may raise anything when it is imported
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{_where(entry)} cannot be loaded: {reason}") from error
    if not (inspect.isclass(method) and issubclass(method, Method)) or inspect.isabstract(method):
        raise InputError(f"{_where(entry)} is no method; expected a class of models.method.Method")
    if not (getattr(method, "name", "") and getattr(method, "learns_from", "")):
        raise InputError(f"{_where(entry)}: expected `name`, `summary` and `learns_from`")
    return method


def _where(entry: EntryPoint) -> str:
    package = entry.dist.name if entry.dist else "an installed package"
    return f"{package}: entry point {entry.name} = {entry.value!r}"
