"""An InputError is one sentence: in a terminal, in a server's log, and nothing behind it.

Prefect logs an exception in every task and flow that it passes, each time with a traceback. Of an
InputError those records say nothing more than its sentence, so one is kept, without traceback.
"""

import atexit
import contextlib
import logging
import os
import sys
from typing import Final

from tasks.errors import InputError

LOGGERS: Final = ("prefect.flow_runs", "prefect.task_runs", "prefect.engine")
FOLLOWS: Final = ("InputError", "did not reach a 'COMPLETED' state")
"""What records say that tell of states behind an exception."""


class OneSentence(logging.Filter):
    """Lets an InputError pass once, as its sentence; in a terminal not at all: it ends the command.

    What fails because of it is not told.
    """

    def __init__(self) -> None:
        super().__init__()
        self._has_told = False

    def filter(self, record: logging.LogRecord) -> bool:
        """True if the record is to be shown; it is changed where it carries an InputError."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, InputError):
            is_first = not getattr(error, "is_told", False)
            error.is_told = self._has_told = True  # type: ignore[attr-defined]
            record.msg, record.args = str(error), ()
            record.exc_info = record.exc_text = None
            return is_first and not _is_command()
        is_of_state = record.levelno >= logging.ERROR and self._has_told
        return not (is_of_state and any(part in record.getMessage() for part in FOLLOWS))


SENTENCE: Final = OneSentence()


def install() -> None:
    """Filter Prefect's loggers, and end each process of ours quietly."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(SENTENCE)
    atexit.register(_end_quietly)


def _is_command() -> bool:
    """True for `python -m flows.<flow>`, which prints the sentence itself."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec is not None and str(spec.name).startswith("flows.")


def _end_quietly() -> None:
    """Close stderr to what libraries say when Python is gone: DuckDB's list of leaked instances."""
    # it may be closed already, or none
    with contextlib.suppress(AttributeError, OSError, ValueError):
        sys.stderr.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
