"""What a flow's state says in Prefect's lists: how it went, or the sentence that ended it."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from prefect.states import Completed, Failed

from tasks.errors import InputError

P = ParamSpec("P")
T = TypeVar("T")


def finished(message: str, result: T) -> T:
    """A flow's result for who called it, with the message of its state."""
    return cast("T", Completed(message=message, data=result))


def in_one_sentence(work: Callable[P, T]) -> Callable[P, T]:
    """A flow's function, whose run fails by an InputError's sentence alone; who called gets it."""

    @functools.wraps(work)
    def told(*positional: P.args, **named: P.kwargs) -> T:
        try:
            return work(*positional, **named)
        except InputError as error:
            return cast("T", Failed(message=str(error), data=error))

    return told
