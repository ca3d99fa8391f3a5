"""Readers of caption files: MS-COCO JSON, OpenImages narratives, tables; one record at a time.

A record is what a file says of one caption, unjudged: sql/corpus/ decides what is kept. Files are
streamed, so memory does not grow with them.
"""

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import InputError

BLOCK: Final = 1 << 20
LONGEST_LINE: Final = 1 << 20
LONGEST_ITEM: Final = 8 << 20
LONGEST_RAW: Final = 1000
GZIP_MAGIC: Final = b"\x1f\x8b"
WHITESPACE: Final = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True)
class Columns:
    """Which columns of a table hold what."""

    text: str = "text"
    id: str | None = None
    image: str | None = None


@dataclass(frozen=True)
class Record:
    """One record: its 1-based place in the file, its fields, or the problem with it."""

    position: int
    raw: str
    native_id: str | None = None
    image_id: str | None = None
    text: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Image:
    """An entry of a COCO file's `images`: the id that annotations refer to."""

    image_id: str


def read_coco(path: Path) -> Iterator[Record | Image]:
    """Annotations and images of a COCO captions file, in file order."""
    position = 0
    for key, item in _coco_items(path):
        if key == "images":
            if isinstance(item, dict) and "id" in item:
                yield Image(str(item["id"]))
            continue
        position += 1
        raw = printable(json.dumps(item, ensure_ascii=False))
        if not isinstance(item, dict):
            yield Record(position, raw, problem="not_an_object")
        elif position == 1 and "caption" not in item and "category_id" in item:
            raise InputError(
                f"{path}: its annotations are objects without 'caption'; expected a captions file "
                "(captions_*.json), this looks like instances"
            )
        elif item.get("id") is None or item.get("image_id") is None:
            yield Record(position, raw, problem="no_id")
        else:
            text = _text(item.get("caption"))
            yield Record(position, raw, str(item["id"]), str(item["image_id"]), text)


def read_narratives(path: Path) -> Iterator[Record | Image]:
    """Localized narratives: one JSON object a line, gzip or not."""
    for position, raw, item, problem in _json_lines(path):
        if problem or not isinstance(item, dict):
            yield Record(position, raw, problem=problem or "not_an_object")
        elif item.get("image_id") is None or item.get("annotator_id") is None:
            yield Record(position, raw, problem="no_id")
        else:
            image = str(item["image_id"])
            native = f"{image}_{item['annotator_id']}"
            yield Record(position, raw, native, image, _text(item.get("caption")))


def read_table(path: Path, columns: Columns) -> Iterator[Record | Image]:
    """Rows of a CSV, JSONL or Parquet file with a text column."""
    for position, raw, row, problem in _rows(path, columns):
        if problem or not isinstance(row, dict):
            yield Record(position, raw, problem=problem or "not_an_object")
            continue
        native = row.get(columns.id) if columns.id else None
        image = row.get(columns.image) if columns.image else None
        if columns.id and native in (None, ""):
            yield Record(position, raw, problem="no_id")
        else:
            yield Record(
                position,
                raw,
                None if native is None else str(native),
                None if image in (None, "") else str(image),
                _text(row.get(columns.text)),
            )


def printable(text: str) -> str:
    """The first characters of a text, with signs that do not print spelled out."""
    start = text[:LONGEST_RAW]
    if not start.isprintable():
        start = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in start)
    return start[:LONGEST_RAW]


def _text(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    # a lone surrogate (JSON's "\ud800") is no character, and no UTF-8 file can hold it
    return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked if it is gzip; a cut or broken gzip is an InputError."""
    with path.open("rb") as file:
        is_gzip = file.read(2) == GZIP_MAGIC
        file.seek(0)
        try:
            if is_gzip:
                with gzip.open(file) as unpacked:
                    yield unpacked  # type: ignore[misc]
            else:
                yield file
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(
                f"{path}: cut short or broken gzip ({error}); fetch the file again"
            ) from error


def _json_lines(path: Path) -> Iterator[tuple[int, str, Any, str | None]]:
    """(line number, start of the line, value, problem) of each line that is not blank."""
    with opened(path) as file:
        position = 0
        while line := file.readline(LONGEST_LINE):
            position += 1
            raw = printable(line[: 4 * LONGEST_RAW].decode("utf-8", "backslashreplace").strip())
            if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                while (rest := file.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
                    pass
                yield position, raw, None, "line_too_long"
                continue
            if not line.strip():
                continue
            try:
                yield position, raw, orjson.loads(line), None
            except orjson.JSONDecodeError:
                yield position, raw, None, "not_json" if _is_utf8(line) else "not_utf8"


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _rows(path: Path, columns: Columns) -> Iterator[tuple[int, str, Any, str | None]]:
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".parquet"):
        return _parquet_rows(path, columns)
    if name.endswith((".jsonl", ".ndjson")):
        return _json_lines(path)
    if name.endswith((".csv", ".tsv")):
        return _csv_rows(path, columns, "\t" if name.endswith(".tsv") else ",")
    raise InputError(f"{path}: expected a table that ends in .csv, .tsv, .jsonl or .parquet")


def _parquet_rows(path: Path, columns: Columns) -> Iterator[tuple[int, str, Any, str | None]]:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: not a whole Parquet file: {error}") from error
    _check_columns(path, file.schema_arrow.names, columns)
    wanted = [c for c in (columns.text, columns.id, columns.image) if c]
    position = 0
    for batch in file.iter_batches(columns=list(dict.fromkeys(wanted))):
        for row in batch.to_pylist():
            position += 1
            yield position, printable(json.dumps(row, default=str, ensure_ascii=False)), row, None


def _csv_rows(
    path: Path, columns: Columns, delimiter: str
) -> Iterator[tuple[int, str, Any, str | None]]:
    with opened(path) as file:
        lines = io.TextIOWrapper(file, "utf-8-sig", errors="backslashreplace", newline="")
        reader = csv.reader((line.replace("\0", "\\x00") for line in lines), delimiter=delimiter)
        try:
            header = next(reader, [])
            _check_columns(path, header, columns)
            for row in reader:
                if not row:
                    continue
                raw = printable(delimiter.join(row))
                problem = None if len(row) == len(header) else "wrong_number_of_fields"
                yield reader.line_num, raw, dict(zip(header, row, strict=False)), problem
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num}: broken CSV: {error}") from error


def _check_columns(path: Path, found: list[str], columns: Columns) -> None:
    for field, column in (("text", columns.text), ("id", columns.id), ("image", columns.image)):
        if column is not None and column not in found:
            raise InputError(
                f"{path}: no column {column!r}; expected it for {field}_column, there are "
                f"{', '.join(found[:20])}"
            )


class _Json:
    """JSON text read piece by piece; knows how far it is, for messages."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path = path
        self._file = file
        self._decode: Callable[..., str] = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._json = json.JSONDecoder()
        self._text, self._at, self._dropped, self._ended = "", 0, 0, False

    def fail(self, expected: str) -> InputError:
        """The error for what stands at the present place."""
        where = f"character {self._dropped + self._at + 1}"
        state = "the file ends" if self._ended and self._at >= len(self._text) else "broken JSON"
        return InputError(
            f"{self.path}, {where}: {state}; expected {expected}; fetch the file again"
        )

    def peek(self) -> str:
        """The next sign that is no white space, '' at the end."""
        while True:
            match = WHITESPACE.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def take(self, signs: str, expected: str) -> str:
        """The next sign, which must be one of `signs`."""
        sign = self.peek()
        if not sign or sign not in signs:
            raise self.fail(expected)
        self._at += 1
        return sign

    def value(self) -> Any:
        """The next whole value."""
        self.peek()
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._at)
            except (json.JSONDecodeError, RecursionError) as error:
                if self._room() and self._more():
                    continue
                raise self.fail("a whole JSON value") from error
            # a number may go on in the next block
            if end == len(self._text) and self._more():
                continue
            self._at = end
            return value

    def skip(self) -> None:
        """Step over the next value; a list is stepped over item by item."""
        if self.peek() == "[":
            for _ in self.items():
                pass
        else:
            self.value()

    def items(self) -> Iterator[Any]:
        """The items of the next value, a list."""
        self.take("[", "a list")
        if self.peek() == "]":
            self.take("]", "]")
            return
        while True:
            yield self.value()
            if self.take(",]", "',' or ']' after an item") == "]":
                return

    def _room(self) -> bool:
        return len(self._text) - self._at <= LONGEST_ITEM

    def _more(self) -> bool:
        if self._ended:
            return False
        block = self._file.read(BLOCK)
        self._ended = not block
        try:
            text = self._decode(block, final=self._ended)
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path}: not UTF-8 ({error.reason}); expected JSON") from error
        self._dropped += self._at
        self._text, self._at = self._text[self._at :] + text, 0
        return not self._ended


def _coco_items(path: Path) -> Iterator[tuple[str, Any]]:
    """(key, item) of the lists `images` and `annotations`, in file order; the rest is skipped."""
    with opened(path) as file:
        text = _Json(path, file)
        text.take("{", "a JSON object, as in MS-COCO's captions_*.json")
        seen = set()
        while text.peek() == '"':
            key = text.value()
            text.take(":", "':' after a key")
            if key in ("images", "annotations"):
                seen.add(key)
                for item in text.items():
                    yield key, item
            else:
                text.skip()
            if text.take(",}", "',' or '}' after a value") == "}":
                break
        else:
            text.take("}", "a key")
        if text.peek():
            raise text.fail("nothing after the object")
        for key in ("images", "annotations"):
            if key not in seen:
                raise InputError(f"{path}: no list {key!r}; expected MS-COCO's captions_*.json")
