"""DuckDB queries (one a file, by layer) and the vocabularies (one CSV per class list)."""

from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent


@cache
def query(name: str) -> str:
    """Text of `sql/<name>.sql`, for example `query("labels/matches")`."""
    return (ROOT / f"{name}.sql").read_text(encoding="utf-8")
