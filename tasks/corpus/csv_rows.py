"""Lines of a CSV as rows: each line belongs to one row, whatever its quotes do.

A quote that is opened and not closed costs the line that it stands in: a record has at most
MOST_LINES lines, and those of a runaway quote look like records themselves. Reading goes on behind
the first of them.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from tasks.corpus.text_files import LONGEST_LINE

MOST_LINES: Final = 64
# as many lines of a record that could each be one are no accident
FEWEST_LIKE_RECORDS: Final = 3
# a long field is judged by its caption's length, not here
csv.field_size_limit(2 * LONGEST_LINE)


@dataclass(frozen=True)
class Dialect:
    """How rows are written, and the columns."""

    delimiter: str
    quote: str | None
    """None: quotation marks are just characters."""
    header: tuple[str, ...]
    header_lines: int
    """How many lines there are before the first row, blank ones aside."""

    def reader(self, lines: Iterable[str]) -> Any:
        """The standard library's reader of rows."""
        if self.quote is None:
            return csv.reader(lines, delimiter=self.delimiter, quoting=csv.QUOTE_NONE)
        return csv.reader(lines, delimiter=self.delimiter, quotechar=self.quote, strict=True)

    def literal(self, line: str) -> list[str]:
        """One line's fields if quotation marks were just characters."""
        return next(csv.reader([line], delimiter=self.delimiter, quoting=csv.QUOTE_NONE), [])


class Row(NamedTuple):
    """A record's first line, how many it has, its fields or what is wrong with it."""

    position: int
    lines: int
    fields: list[str]
    problem: str | None = None


class _Halt(Exception):  # noqa: N818
    """A record has too many lines, or meets one that is too long."""


def rows_of(
    lines: Sequence[str], dialect: Dialect, first: int, ends: bool
) -> tuple[list[Row], int]:
    """The rows of some lines, and how many lines they take: all, but a record that may go on.

    Args:
        lines: with their ends.
        dialect: how they are written.
        first: number of the first line.
        ends: True if the file ends behind them.

    """
    rows: list[Row] = []
    at = 0
    while at < len(lines):
        done, problem = _some_rows(lines, at, first, dialect, rows)
        at = done
        if problem is None:
            continue
        if problem == "open" and not ends and len(lines) - at < MOST_LINES:
            return rows, at
        rows.append(_broken(lines[at], first + at, problem, dialect))
        at += 1
    return rows, len(lines)


def _some_rows(
    lines: Sequence[str], at: int, first: int, dialect: Dialect, rows: list[Row]
) -> tuple[int, str | None]:
    """Rows from line `at` on, up to one that is broken: where that begins, and why."""
    begun = fed = at

    def feed() -> Iterator[str]:
        nonlocal fed
        while fed < len(lines):
            if fed - begun >= MOST_LINES or len(lines[fed]) >= LONGEST_LINE:
                raise _Halt
            fed += 1
            yield lines[fed - 1]

    try:
        for fields in dialect.reader(feed()):
            if fed - begun > FEWEST_LIKE_RECORDS and _runs_away(lines[begun:fed], dialect):
                return begun, "unclosed_quote"
            rows.append(Row(first + begun, fed - begun, fields))
            begun = fed
    except _Halt:
        return begun, "line_too_long" if fed == begun else "unclosed_quote"
    except csv.Error as error:
        if "unexpected end" in str(error):
            return begun, "open"
        return begun, "broken_quotes" if fed - begun == 1 else "unclosed_quote"
    return begun, None


def _runs_away(lines: Sequence[str], dialect: Dialect) -> bool:
    """True if each line of a record could be one by itself."""
    width = len(dialect.header)
    return width > 1 and all(line.count(dialect.delimiter) == width - 1 for line in lines)


def _broken(line: str, position: int, problem: str, dialect: Dialect) -> Row:
    """A line whose quotes are not as they should; a whole one is taken as it stands."""
    if problem == "broken_quotes":
        fields = dialect.literal(line)
        if len(fields) == len(dialect.header):
            return Row(position, 1, fields)
    return Row(position, 1, [], "unclosed_quote" if problem == "open" else problem)
