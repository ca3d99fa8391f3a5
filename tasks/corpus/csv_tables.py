"""CSV, TSV and their kin: every physical line is the header, blank, or part of one record.

A quote that is opened and not closed costs the line that it stands in: a record has at most
MOST_LINES lines, and those of a runaway quote look like records themselves. Reading goes on behind
the first of them.
"""

import csv
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa

from tasks.corpus.dialects import Dialect, dialect_of
from tasks.corpus.json_records import row_record
from tasks.corpus.records import (
    Block,
    Columns,
    Lines,
    Record,
    make_records,
    printable,
    strings,
    tidy,
    whole_records,
)
from tasks.corpus.text_files import LONGEST_LINE, kept_ends, opened

MOST_LINES: Final = 64
# as many lines of a record that could each be one are no accident
FEWEST_LIKE_RECORDS: Final = 3


class Row(NamedTuple):
    """A record's first line, how many it has, its fields or what is wrong with it."""

    position: int
    lines: int
    fields: list[str]
    problem: str | None = None


class _Halt(Exception):  # noqa: N818
    """A record has too many lines, or meets one that is too long."""


def read_csv(path: Path, columns: Columns) -> Iterator[Block]:
    """Rows of a table, in blocks of about a megabyte."""
    dialect = dialect_of(path, columns)
    by_column, by_row = (
        partial(_row_columns, dialect, columns),
        partial(_row_records, dialect, columns),
    )
    first, header = 1, dialect.header_lines
    rest: list[str] = []
    for block, ends in _line_blocks(path, columns):
        lines = rest + block
        rows, used = rows_of(lines, dialect, first, ends)
        rest, lines = lines[used:], lines[:used]
        blank = sum(row.lines for row in rows if not row.fields and not row.problem)
        found = [row for row in rows if row.fields or row.problem]
        above, found = found[:header], found[header:]
        header -= len(above)
        yield Block(
            range(first, first + used),
            partial(make_records, 0, found, by_column, by_row),
            partial(_start, lines, first),
            sum(map(len, lines)),
            lines=Lines(
                used,
                sum(row.lines for row in above),
                blank,
                sum(row.lines for row in found),
            ),
        )
        first += used


def check_csv(path: Path, columns: Columns) -> None:
    """InputError if the header lacks a column, or the file is no table."""
    dialect_of(path, columns)


def _line_blocks(path: Path, columns: Columns) -> Iterator[tuple[list[str], bool]]:
    """(lines, True behind the last) of a file."""
    with opened(path, columns.encoding) as file:
        for block in kept_ends(file):
            yield [line.decode("utf-8", "surrogateescape") for line in block], False
    yield [], True


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


def _row_columns(
    dialect: Dialect, columns: Columns, _: int, rows: Sequence[Row]
) -> pa.Table | None:
    """Records of rows that are all whole, or None."""
    header = dialect.header
    if {len(row.fields) for row in rows} != {len(header)}:
        return None
    at = {name: place for place, name in enumerate(header)}
    fields = {name: [row.fields[at[name]] for row in rows] for name in columns.named}
    texts = strings(fields[columns.text])
    native = tidy(strings(fields[columns.id])) if columns.id else None
    images = tidy(strings(fields[columns.image])) if columns.image else None
    odd = texts is None or (columns.id and native is None) or (columns.image and images is None)
    if odd or columns.text in fields[columns.text]:
        return None
    positions = pa.array([row.position for row in rows], pa.int64())
    return whole_records(positions, native, images, texts)


def _row_records(dialect: Dialect, columns: Columns, _: int, row: Row) -> list[Record]:
    position, _, fields, problem = row
    if problem:
        return [Record(position, problem=problem)]
    if len(fields) != len(dialect.header):
        return [Record(position, problem="wrong_number_of_fields")]
    if columns.header and tuple(map(str.strip, fields)) == dialect.header:
        # files put end to end
        return [Record(position, problem="header_again")]
    return row_record(columns, position, dict(zip(dialect.header, fields, strict=True)))


def _start(lines: Sequence[str], first: int, position: int) -> str:
    return printable(lines[position - first].rstrip("\r\n"))
