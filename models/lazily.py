"""Imports that are done when what they bring is first used: `lazy import` of Python 3.15 (PEP 810).

torch, open_clip and MLflow take longer to import than a command has to do that finds all done, or
bad input. So what stands in `with lazily():` is a promise until it is called, looked into, built on
or held against; then the promise's name in the module is bound to the thing itself.

A promise stands for a module, a class or a function: no constant, and nothing that `except` names
(there `module.Error` does it). tests/test_house.py holds all modules to that.
"""

import builtins
import functools
import importlib
import sys
import threading
import types
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

_ONE_AT_A_TIME: Final = threading.RLock()


class lazily:  # noqa: N801
    """Context in which the `import` statements of a module's top level make promises.

    >>> with lazily():
    ...     import torch
    ...     from torch.nn import functional as F
    """

    def __enter__(self) -> None:
        _ONE_AT_A_TIME.acquire()
        scope = sys._getframe(1).f_globals
        self._before = before = builtins.__import__

        def promise(
            name: str,
            globals: Mapping[str, object] | None = None,
            locals: Mapping[str, object] | None = None,
            fromlist: Sequence[str] | None = (),
            level: int = 0,
        ) -> Any:
            # another thread's imports are none of ours
            if globals is not scope:
                return before(name, globals, locals, fromlist or (), level)
            return _Source(scope, name) if fromlist else Promise(scope, name, "")

        builtins.__import__ = promise

    def __exit__(self, *_: object) -> None:
        builtins.__import__ = self._before
        _ONE_AT_A_TIME.release()


class _Source:
    """The module of a `from … import …`, of which each name is a promise."""

    def __init__(self, scope: dict[str, Any], module: str) -> None:
        self._scope, self._module = scope, module

    def __getattr__(self, name: str) -> "Promise":
        return Promise(self._scope, self._module, name)


class Promise:
    """What stands for a module, or a class or function of one, until it is used."""

    __slots__ = ("_module", "_name", "_scope")

    def __init__(self, scope: dict[str, Any], module: str, name: str) -> None:
        self._scope, self._module, self._name = scope, module, name

    def __getattr__(self, name: str) -> Any:
        return getattr(kept(self), name)

    def __call__(self, *positional: Any, **named: Any) -> Any:  # noqa: D102
        return kept(self)(*positional, **named)

    def __getitem__(self, key: Any) -> Any:
        return kept(self)[key]

    def __or__(self, other: Any) -> Any:
        return kept(self) | other

    def __ror__(self, other: Any) -> Any:
        return other | kept(self)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, kept(self))

    def __subclasscheck__(self, other: type) -> bool:
        return issubclass(other, kept(self))

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (kept(self),)

    def __reduce__(self) -> tuple[Any, ...]:
        return _brought, (self._module, self._name)


def kept(promise: Promise) -> Any:
    """The thing itself, which takes the promise's place in its module."""
    real = _brought(promise._module, promise._name)
    for name, value in list(promise._scope.items()):
        if value is promise:
            promise._scope[name] = real
    return real


def _brought(module: str, name: str) -> Any:
    """What `from module import name` binds, or `import module` where there is no name."""
    found = importlib.import_module(module)
    if not name:
        return found
    try:
        return getattr(found, name)
    except AttributeError:
        return importlib.import_module(f"{module}.{name}")


if TYPE_CHECKING:
    from torch.nn import Module as Module
else:

    class Module:
        """torch's `nn.Module` for classes of modules that are read without torch.

        It is mixed in when the first one is made.
        """

        def __new__(cls, *_: Any, **__: Any) -> Any:  # noqa: D102
            return object.__new__(_with_torch(cls))


@functools.cache
def _with_torch(of: type) -> type:
    from torch import nn

    if issubclass(of, nn.Module):
        return of
    told = {"__module__": of.__module__, "__qualname__": of.__qualname__, "__doc__": of.__doc__}
    made: type = types.new_class(of.__name__, (of, nn.Module), {}, lambda names: names.update(told))
    return made
