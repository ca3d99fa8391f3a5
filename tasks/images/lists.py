"""Text files of image sets, in any encoding that they say, packed or not; names of image files."""

import csv
import io
import re
from pathlib import Path, PurePosixPath
from typing import Final

from tasks.corpus.text_files import BLOCK, LONGEST_LINE, opened
from tasks.errors import InputError

DELIMITERS: Final = (",", ";", "\t", "|")


def read_bytes(path: Path) -> bytes:
    """A file's text as UTF-8 without its mark; InputError if it cannot be read."""
    parts = []
    try:
        with opened(path) as file:
            while block := file.read(BLOCK):
                parts.append(block)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return b"".join(parts)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, be they of Unix, Windows or old Macs."""
    lines = read_bytes(path).splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}, line {number}: not UTF-8 text; save the file as UTF-8"
            ) from error
    return [line.decode("utf-8") for line in lines]


def read_table(path: Path, *columns: str) -> list[tuple[int, list[str]]]:
    """(line, those columns' cells) of each row of a CSV; lines end where csv's rules say.

    Columns are known by their names in lower case.
    """
    content = _content(path)
    fitting = [one for one in DELIMITERS if set(columns) <= set(_lower(content, one))]
    if not fitting:
        raise InputError(
            f"{path}, line 1: expected the columns {' and '.join(columns)}, there are "
            f"{', '.join(map(repr, _lower(content, ',')[:20]))}"
        )
    header = _lower(content, fitting[0])
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=fitting[0], strict=True)
    rows = []
    line = 1
    try:
        next(reader)
        for row in reader:
            # a row begins on the line behind the last one's end
            begun, line = line + 1, reader.line_num
            if row and len(row) != len(header):
                raise InputError(
                    f"{path}, line {begun}: expected a {' and a '.join(columns[:2])} "
                    f"({len(header)} fields), got {len(row)}"
                )
            if row:
                rows.append((begun, [row[header.index(column)].strip() for column in columns]))
    except csv.Error as error:
        raise InputError(f"{path}, line {line + 1}: broken CSV: {error}") from error
    return rows


def read_header(path: Path, column: str) -> list[str]:
    """The names of a CSV's columns, if one is called `column` in any case; else none."""
    content = _content(path)
    for delimiter in DELIMITERS:
        if column in _lower(content, delimiter):
            return _header(content, delimiter)
    return []


def _content(path: Path) -> str:
    text = read_bytes(path)
    csv.field_size_limit(2 * LONGEST_LINE)
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: not UTF-8 text; save the file as UTF-8") from error


def _lower(content: str, delimiter: str) -> list[str]:
    return [name.lower() for name in _header(content, delimiter)]


def _header(content: str, delimiter: str) -> list[str]:
    try:
        first = next(csv.reader(io.StringIO(content, newline=""), delimiter=delimiter), [])
    except csv.Error:
        return []
    return [cell.strip() for cell in first]


def image_file(where: str | Path, name: str) -> str:
    """An image's path inside its folder, one way to write each: forward slashes, no `./`.

    Raises:
        InputError: there is none, or it leaves the folder.

    """
    if not name.strip():
        raise InputError(f"{where}: field 'file' is empty; expected an image")
    plain = name.strip().replace("\\", "/")
    path = PurePosixPath(plain)
    leaves = path.is_absolute() or ".." in path.parts or "\0" in plain
    if leaves or re.match(r"[A-Za-z]:", plain) or not path.name:
        raise InputError(f"{where}: file name {name[:200]!r} leaves its folder")
    return path.as_posix()
