"""What must stand before Prefect is imported: where it keeps its things, whom it asks."""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from tasks.code import ROOT
from tasks.errors import InputError
from tasks.files import address, home
from tasks.processes import is_running

SETTINGS: Final = ROOT / "prefect.toml"
"""Prefect reads it in the project's folder: so typed commands find the server of `make up`."""


def settle_prefect() -> None:
    """Have Prefect keep its things in the home, if nobody says where; before it is imported.

    The user's own profiles, with the address of a server perhaps, go on being read.
    """
    if os.environ.get("PREFECT_HOME"):
        return
    try:
        place = address() / "prefect"
        place.resolve().mkdir(parents=True, exist_ok=True)
        is_fit = os.access(place, os.W_OK)
    except (OSError, InputError):
        is_fit = False  # the door says why
    if not is_fit:
        place = Path(tempfile.mkdtemp(prefix="tai-prefect-"))
        atexit.register(shutil.rmtree, place, ignore_errors=True)
    os.environ["PREFECT_HOME"] = str(place)
    own = Path(os.environ.get("HOME") or "/") / ".prefect" / "profiles.toml"
    if own.is_file():
        os.environ.setdefault("PREFECT_PROFILES_PATH", str(own))


def pid_file(name: str, suffix: str = ".pid") -> Path:
    """Where the mark of a service's process is kept."""
    return home() / "services" / f"{name}{suffix}"


def is_up(name: str) -> bool:
    """Whether a service that `make up` has started still runs."""
    file = pid_file(name)
    return file.is_file() and bool(is_running(file.read_text(encoding="utf-8")))


def forget_stale() -> None:
    """Remove the address of a server that has ended: every typed command would ask it in vain."""
    try:
        if SETTINGS.is_file() and pid_file("prefect").is_file() and not is_up("prefect"):
            SETTINGS.unlink(missing_ok=True)
            sys.stderr.write(
                f"{SETTINGS}: of a server that has ended; removed (make up starts one)\n"
            )
    except (OSError, InputError):
        return
