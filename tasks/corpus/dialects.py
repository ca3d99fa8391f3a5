"""How a table of text is written: what the profile says, what its header tells, DuckDB's sniffer.

The columns that are wanted stand in the header: a delimiter under which they do is the right one.
The sniffer says whether quotation marks quote or are just characters, as in CC3M's captions.
"""

import csv
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb

from tasks.corpus.parquet_tables import check_columns
from tasks.corpus.records import Columns
from tasks.corpus.text_files import LONGEST_LINE, opened
from tasks.errors import InputError

SAMPLE: Final = 1 << 18
USUAL: Final = (",", "\t", ";", "|")
SEPARATOR_LINE: Final = ("sep=", '"sep=')
SNIFF: Final = "select Delimiter, Quote from sniff_csv($1, all_varchar = true)"
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
    hint = "; if the file has no header, set header = false" if columns.header else ""
    check_columns(path, header, columns, hint)
    quote = _quote(columns.quote, text, delimiter)
    return Dialect(delimiter, quote, tuple(header), before + columns.header)


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


def _quote(stated: str | None, text: str, delimiter: str) -> str | None:
    if stated is not None:
        return stated or None
    # without a quotation mark in sight: tab-separated values have none by their definition
    quotes = _sniffed(text, delimiter)[1] if '"' in text else delimiter != "\t"
    return '"' if quotes else None


def _by_name(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    return "\t" if name.endswith((".tsv", ".tab")) else ","
