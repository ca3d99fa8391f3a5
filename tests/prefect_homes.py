"""Homes of Prefect whose tables are there: a hundred migrations take longer than most tests.

The first home of a session is made by Prefect itself; later ones begin as a copy of its file.
"""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

MADE = "TESTS_PREFECT_DB"
"""Environment variable: the file that is copied."""


def begin(home: Path) -> None:
    """Lay the tables into a new home, if there are some yet."""
    made = Path(os.environ[MADE])
    home.mkdir(parents=True, exist_ok=True)
    if made.is_file() and not (home / made.name).exists():
        shutil.copyfile(made, home / made.name)


def leave(home: Path) -> None:
    """Keep the tables of a home whose server has ended."""
    made, own = Path(os.environ[MADE]), home / "prefect.db"
    if made.exists() or not own.is_file():
        return
    aside = made.with_name(f"{made.name}-{os.getpid()}")
    # a plain copy would lack what still stands in the file beside it
    with closing(sqlite3.connect(own)) as whole, closing(sqlite3.connect(aside)) as copy:
        whole.backup(copy)
        for table in ("flow_run", "flow"):
            copy.execute(f"delete from {table}")  # noqa: S608
        copy.commit()
    aside.rename(made)
