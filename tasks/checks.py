"""Data tests: queries beside the ones they test, whose every row is a fault."""

from collections.abc import Sequence
from typing import Final

import duckdb

import sql
from tasks.errors import DataTestError

EXAMPLES: Final = 3


def run_checks(connection: duckdb.DuckDBPyConnection, names: Sequence[str]) -> None:
    """Run sql/<name>.sql on a connection that holds the tables they test.

    Raises:
        DataTestError: what a row of the failed test means, how many there are, and three of them.

    """
    for path in names:
        rows = connection.execute(sql.query(path)).fetchall()
        if rows:
            columns = [column[0] for column in connection.description or ()]
            examples = "; ".join(
                ", ".join(f"{name} = {value!r}" for name, value in zip(columns, row, strict=True))
                for row in rows[:EXAMPLES]
            )
            raise DataTestError(
                f"sql/{path}.sql: {len(rows):,} rows where none may be. {sql.meaning(path)} "
                f"For example: {examples}"
            )
