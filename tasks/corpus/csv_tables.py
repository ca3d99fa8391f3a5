"""CSV, TSV and their kin: every physical line is the header, blank, or part of one record."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa

from tasks.corpus.csv_rows import Dialect, Row, rows_of
from tasks.corpus.dialects import dialect_of
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
from tasks.corpus.text_files import kept_ends, opened


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
