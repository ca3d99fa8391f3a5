"""How a table of text is written: what the profile says, what its header tells, DuckDB's sniffer.

The columns that are wanted stand in the header: a delimiter under which they do is the right one.
Whether quotation marks quote, or are just characters as in CC3M's captions, is told by the lines
that have some, or else by the sniffer.
"""

import csv
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

import duckdb

from tasks.corpus.csv_rows import Dialect, rows_of
from tasks.corpus.parquet_tables import check_columns
from tasks.corpus.records import Columns
from tasks.corpus.text_files import opened
from tasks.errors import InputError

SAMPLE: Final = 1 << 18
USUAL: Final = (",", "\t", ";", "|")
NO_DELIMITER: Final = "\x1f"
SEPARATOR_LINE: Final = ("sep=", '"sep=')
SNIFF: Final = "select Delimiter, Quote from sniff_csv($1, all_varchar = true)"


def dialect_of(path: Path, columns: Columns) -> Dialect:
    """How a table is written, by what it begins with.

    Raises:
        InputError: a column that is wanted is not there.

    """
    with opened(path, columns.encoding) as file:
        sample = b""
        while len(sample) < SAMPLE and (block := file.read(SAMPLE - len(sample))):
            sample += block
    whole, newline, _ = sample.rpartition(b"\n")
    text = (whole + newline if len(sample) == SAMPLE and newline else sample).decode(
        "utf-8", "replace"
    )
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{path}: no line; expected a table with a header")
    stated, before = columns.delimiter, 0
    if lines[0].lower().startswith(SEPARATOR_LINE) and len(lines[0].strip('"')) == len("sep=,"):
        # Excel's own way to state a delimiter
        stated, before = stated or lines[0].strip('"')[-1], 1
    first = lines[before] if len(lines) > before else ""
    delimiter = stated or _delimiter(first, text, path, columns)
    header = _fields(first, delimiter, columns)
    if not stated and columns.header and len(header) == 1:
        # nothing is delimited: a comma is one of the caption's
        delimiter = NO_DELIMITER
    hint = "; if the file has no header, set header = false" if columns.header else ""
    check_columns(path, header, columns, hint)
    dialect = Dialect(delimiter, '"', tuple(header), before + columns.header)
    if columns.quote is not None:
        return replace(dialect, quote=columns.quote or None)
    return dialect if _quotes_quote(text, dialect) else replace(dialect, quote=None)


def _delimiter(first: str, text: str, path: Path, columns: Columns) -> str:
    """The sign under which the wanted columns stand in the header, or what the sniffer says."""
    candidates = dict.fromkeys((_by_name(path), *USUAL))
    headers = {one: _fields(first, one, columns) for one in candidates}
    fitting = [one for one, header in headers.items() if set(columns.named) <= set(header)]
    if not columns.header or not fitting:
        sniffed = _sniffed(text, None)[0]
        return sniffed or next((one for one in headers if len(headers[one]) > 1), _by_name(path))
    # the first that cuts the header at all
    return next((one for one in fitting if len(headers[one]) > 1), fitting[0])


def _fields(line: str, delimiter: str, columns: Columns) -> list[str]:
    """The header's columns by one delimiter; blanks around a name matter only if it needs them."""
    try:
        fields = next(csv.reader([line], delimiter=delimiter, quotechar=columns.quote or '"'), [])
    except csv.Error:
        return []
    if not columns.header:
        return [str(place) for place in range(1, len(fields) + 1)]
    wanted = set(columns.named)
    return [
        one.strip() if one not in wanted and one.strip() in wanted - {*fields} else one
        for one in fields
    ]


def _sniffed(text: str, delimiter: str | None) -> tuple[str | None, bool]:
    """DuckDB's guess of the delimiter, and whether quotation marks quote."""
    options = ", delim = $2" if delimiter and len(delimiter) == 1 else ""
    query = SNIFF.replace(")", f"{options})")
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as connection:
        file = Path(folder, "sample.csv")
        file.write_text(text, encoding="utf-8", newline="")
        try:
            values = [str(file), delimiter] if options else [str(file)]
            found = connection.execute(query, values).fetchone()
        except duckdb.Error:
            found = None
    if found is None:
        return None, True
    return (found[0] if found[0] in USUAL else None), found[1] == '"'


def _quotes_quote(text: str, dialect: Dialect) -> bool:
    """Whether quotation marks are no part of what they stand around.

    A field that they wrap speaks for it; a line that has some elsewhere, and is whole if they are
    just characters, against it.
    """
    if '"' not in text:
        # tab-separated values have none by their definition
        return dialect.delimiter != "\t"
    lines = text.splitlines(keepends=True)
    width, delimiter = len(dialect.header), dialect.delimiter
    literally = sum(
        '"' in line and line.count(delimiter) == width - 1 and not _wrapped(line, delimiter)
        for line in lines
    )
    rows, _ = rows_of(lines, dialect, 1, ends=True)
    quoted = 0
    for row in rows:
        written = "".join(lines[row.position - 1 : row.position - 1 + row.lines])
        if len(row.fields) == width and _wrapped(written, delimiter):
            quoted += row.lines
    if quoted != literally:
        return quoted > literally
    return _sniffed(text, delimiter)[1]


def _wrapped(record: str, delimiter: str) -> bool:
    """True if a field begins with a quotation mark, and one that ends a field follows it."""
    sign = re.escape(delimiter)
    return bool(re.search(rf'(?:^|{sign})"(?:[^"]|"")*"(?:{sign}|\r?\n?$)', record))


def _by_name(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    return "\t" if name.endswith((".tsv", ".tab")) else ","
