"""DuckDB queries (one a file, by layer) and the vocabularies (one CSV per class list)."""

import itertools
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent


@cache
def query(name: str) -> str:
    """Text of `sql/<name>.sql`, for example `query("labels/matches")`."""
    return (ROOT / f"{name}.sql").read_text(encoding="utf-8")


def meaning(name: str) -> str:
    """What a row of `sql/<name>.sql` is: the comment that the file begins with."""
    lines = itertools.takewhile(lambda line: line.startswith("--"), query(name).splitlines())
    return " ".join(line.removeprefix("--").strip() for line in lines)
