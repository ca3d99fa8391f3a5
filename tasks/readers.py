"""Readers of caption files: MS-COCO JSON, OpenImages narratives, tables; a block at a time.

A record is what a file says of one caption, unjudged: sql/corpus/ decides what is kept. Files are
streamed, so memory does not grow with them. A block whose records are all whole is taken column by
column; a block with an odd one is gone through record by record. Both give the same records.
"""

import codecs
import csv
import gzip
import io
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import InputError

BLOCK: Final = 1 << 20
RECORDS_PER_BLOCK: Final = 20_000
SMALLEST_PART: Final = 1 << 12
LONGEST_LINE: Final = 1 << 20
LONGEST_ITEM: Final = 8 << 20
LONGEST_RAW: Final = 1000
GZIP_MAGIC: Final = b"\x1f\x8b"
_Row: TypeAlias = tuple[int, str, dict[str, Any], str | None]
WHITESPACE: Final = re.compile(r"[ \t\r\n]*")
NUMBER_CUT: Final = re.compile(r"\.|[eE][+-]?|")


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
    native_id: str | None = None
    image_id: str | None = None
    text: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Block:
    """Some records in file order, and the ids of some entries of a COCO file's `images`.

    `records` has the columns of `RECORDS`; `raw(row)` tells how a row's record begins in the file.
    """

    records: pa.Table
    raw: Callable[[int], str]
    images: Sequence[str] = ()


RECORDS: Final = pa.schema(
    {
        "position": pa.int64(),
        "native_id": pa.string(),
        "image_id": pa.string(),
        "text": pa.string(),
        "problem": pa.string(),
    }
)
_NO_RECORDS: Final = RECORDS.empty_table()


def read_coco(path: Path) -> Iterator[Block]:
    """Annotations and images of a COCO captions file, in file order."""
    position = 1
    for key, items in _coco_items(path):
        if key == "images":
            ids = [str(item["id"]) for item in items if isinstance(item, dict) and "id" in item]
            yield Block(_NO_RECORDS, str, ids)
            continue
        records = _coco_columns(position, items)
        if records is None:
            records = _table(
                _coco_record(path, place, item) for place, item in enumerate(items, position)
            )
        yield Block(records, _dump_of(items))
        position += len(items)


def read_narratives(path: Path) -> Iterator[Block]:
    """Localized narratives: one JSON object a line, gzip or not."""
    for block in _line_blocks(path):
        yield _lines_as_records(block, _narrative_columns, _narrative_record)


def read_table(path: Path, columns: Columns) -> Iterator[Block]:
    """Rows of a CSV, JSONL or Parquet file with a text column."""
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".parquet"):
        return _parquet_blocks(path, columns)
    if name.endswith((".jsonl", ".ndjson")):
        return (
            _lines_as_records(
                block,
                lambda positions, items: _row_columns(positions, items, columns),
                lambda position, item: _row_record(position, item, columns),
            )
            for block in _line_blocks(path)
        )
    if name.endswith((".csv", ".tsv")):
        return _csv_blocks(path, columns, "\t" if name.endswith(".tsv") else ",")
    raise InputError(f"{path}: expected a table that ends in .csv, .tsv, .jsonl or .parquet")


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


def _table(records: Iterable[Record]) -> pa.Table:
    return pa.Table.from_pylist([vars(record) for record in records], schema=RECORDS)


def _columns(
    positions: Sequence[int],
    native: Sequence[str | None],
    images: Sequence[str | None],
    texts: Sequence[str | None],
) -> pa.Table:
    """Records without a problem."""
    arrays = [pa.array(positions, pa.int64())]
    arrays += [pa.array(values, pa.string()) for values in (native, images, texts)]
    return pa.table([*arrays, pa.nulls(len(positions), pa.string())], schema=RECORDS)


def _are(values: Sequence[Any], *types: type) -> bool:
    return set(map(type, values)) <= set(types)


def _dump_of(items: Sequence[Any]) -> Callable[[int], str]:
    return lambda row: printable(json.dumps(items[row], default=str, ensure_ascii=False))


def _coco_columns(position: int, items: list[Any]) -> pa.Table | None:
    """Records of annotations that are all whole, or None."""
    try:
        ids = [item["id"] for item in items]
        images = [item["image_id"] for item in items]
        texts = [item["caption"] for item in items]
    except (KeyError, TypeError, IndexError):
        return None
    if not (_are(ids, int, str) and _are(images, int, str) and _are(texts, str)):
        return None
    positions = range(position, position + len(items))
    return _columns(positions, list(map(str, ids)), list(map(str, images)), list(map(_text, texts)))


def _coco_record(path: Path, position: int, item: Any) -> Record:
    if not isinstance(item, dict):
        return Record(position, problem="not_an_object")
    if position == 1 and "caption" not in item and "category_id" in item:
        raise InputError(
            f"{path}: its annotations are objects without 'caption'; expected a captions file "
            "(captions_*.json), this looks like instances"
        )
    if item.get("id") is None or item.get("image_id") is None:
        return Record(position, problem="no_id")
    return Record(
        position, _text(str(item["id"])), _text(str(item["image_id"])), _text(item.get("caption"))
    )


def _narrative_columns(positions: Sequence[int], items: list[Any]) -> pa.Table | None:
    """Records of narratives that are all whole, or None."""
    try:
        images = [item["image_id"] for item in items]
        annotators = [item["annotator_id"] for item in items]
        texts = [item["caption"] for item in items]
    except (KeyError, TypeError, IndexError):
        return None
    if not (_are(images, str) and _are(annotators, int, str) and _are(texts, str)):
        return None
    native = [f"{image}_{annotator}" for image, annotator in zip(images, annotators, strict=True)]
    return _columns(positions, native, images, texts)


def _narrative_record(position: int, item: Any) -> Record:
    if not isinstance(item, dict):
        return Record(position, problem="not_an_object")
    if item.get("image_id") is None or item.get("annotator_id") is None:
        return Record(position, problem="no_id")
    image = str(item["image_id"])
    return Record(position, f"{image}_{item['annotator_id']}", image, _text(item.get("caption")))


def _row_columns(positions: Sequence[int], rows: list[Any], columns: Columns) -> pa.Table | None:
    """Records of a table's rows that are all whole, or None."""
    named = (columns.id, columns.image, columns.text)
    try:
        native, images, texts = (
            [row[column] if column else None for row in rows] for column in named
        )
    except (KeyError, TypeError, IndexError):
        return None
    for column, values in ((columns.id, native), (columns.image, images)):
        if column and not (_are(values, int, str) and "" not in values):
            return None
    if not _are(texts, str):
        return None
    native = list(map(str, native)) if columns.id else native
    images = list(map(str, images)) if columns.image else images
    return _columns(positions, native, images, list(map(_text, texts)))


def _row_record(position: int, row: Any, columns: Columns) -> Record:
    if not isinstance(row, dict):
        return Record(position, problem="not_an_object")
    native = row.get(columns.id) if columns.id else None
    image = row.get(columns.image) if columns.image else None
    if columns.id and native in (None, ""):
        return Record(position, problem="no_id")
    return Record(
        position,
        None if native is None else _text(str(native)),
        None if image in (None, "") else _text(str(image)),
        _text(row.get(columns.text)),
    )


def _line_blocks(path: Path) -> Iterator[tuple[int, list[bytes]]]:
    """(number of the first line, lines) of blocks of lines; a line that is too long is cut."""
    with opened(path) as file:
        first, lines, size = 1, [], 0
        while line := file.readline(LONGEST_LINE):
            lines.append(line)
            size += len(line)
            if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                while (rest := file.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
                    pass
            if size >= BLOCK:
                yield first, lines
                first, lines, size = first + len(lines), [], 0
        yield first, lines


def _lines_as_records(
    block: tuple[int, list[bytes]],
    columns: Callable[[Sequence[int], list[Any]], pa.Table | None],
    record: Callable[[int, Any], Record],
) -> Block:
    """The records of JSON lines; blank lines are none."""
    first, lines = block
    try:
        items = [orjson.loads(line) for line in lines]
    except orjson.JSONDecodeError:
        pass
    else:
        records = None
        if max(map(len, lines), default=0) < LONGEST_LINE:
            records = columns(range(first, first + len(lines)), items)
        if records is not None:
            return Block(records, lambda row: _line_start(lines[row]))
    numbered = [(first + i, line) for i, line in enumerate(lines) if line.strip()]
    found = _table(_line_record(position, line, record) for position, line in numbered)
    return Block(found, lambda row: _line_start(numbered[row][1]))


def _line_record(position: int, line: bytes, record: Callable[[int, Any], Record]) -> Record:
    if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
        return Record(position, problem="line_too_long")
    try:
        return record(position, orjson.loads(line))
    except orjson.JSONDecodeError:
        return Record(position, problem="not_json" if _is_utf8(line) else "not_utf8")


def _line_start(line: bytes) -> str:
    return printable(line[: 4 * LONGEST_RAW].decode("utf-8", "backslashreplace").strip())


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _parquet_blocks(path: Path, columns: Columns) -> Iterator[Block]:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: not a whole Parquet file: {error}") from error
    _check_columns(path, file.schema_arrow.names, columns)
    wanted = [c for c in (columns.text, columns.id, columns.image) if c]
    position = 1
    try:
        for batch in file.iter_batches(RECORDS_PER_BLOCK, columns=list(dict.fromkeys(wanted))):
            rows = batch.to_pylist()
            yield _rows_as_records(range(position, position + len(rows)), rows, columns)
            position += len(rows)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}, row {position}: broken Parquet: {error}") from error


def _rows_as_records(positions: Sequence[int], rows: list[Any], columns: Columns) -> Block:
    records = _row_columns(positions, rows, columns)
    if records is None:
        numbered = zip(positions, rows, strict=True)
        records = _table(_row_record(position, row, columns) for position, row in numbered)
    return Block(records, _dump_of(rows))


def _csv_blocks(path: Path, columns: Columns, delimiter: str) -> Iterator[Block]:
    for numbered in _batched(_csv_rows(path, columns, delimiter)):
        records = [
            Record(position, problem=problem) if problem else _row_record(position, row, columns)
            for position, _, row, problem in numbered
        ]
        written = [as_written for _, as_written, _, _ in numbered]
        yield Block(_table(records), _start_of(written))


def _start_of(texts: Sequence[str]) -> Callable[[int], str]:
    return lambda row: printable(texts[row])


def _batched(rows: Iterator[_Row]) -> Iterator[list[_Row]]:
    while batch := list(itertools.islice(rows, RECORDS_PER_BLOCK)):
        yield batch


def _csv_rows(path: Path, columns: Columns, delimiter: str) -> Iterator[_Row]:
    """(line, as written, row by column, problem) of each row that is not blank."""
    with opened(path) as file:
        lines = io.TextIOWrapper(file, "utf-8-sig", errors="backslashreplace", newline="")
        reader = csv.reader((line.replace("\0", "\\x00") for line in lines), delimiter=delimiter)
        try:
            header = next(reader, [])
            _check_columns(path, header, columns)
            for row in reader:
                if not row:
                    continue
                problem = None if len(row) == len(header) else "wrong_number_of_fields"
                fields = dict(zip(header, row, strict=False))
                yield reader.line_num, delimiter.join(row), fields, problem
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
        self._odd_until = 0

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
            # a number may go on in the next block, be it after its point or in its exponent
            if NUMBER_CUT.fullmatch(self._text, end) and self._more():
                continue
            self._at = end
            return value

    def skip(self) -> None:
        """Step over the next value; a list is stepped over item by item."""
        if self.peek() == "[":
            for _ in self.blocks():
                pass
        else:
            self.value()

    def blocks(self) -> Iterator[list[Any]]:
        """The items of the next value, a list, some at a time."""
        self.take("[", "a list")
        if self.peek() == "]":
            self.take("]", "]")
            return
        while True:
            yield self._some()
            if self.take(",]", "',' or ']' after an item") == "]":
                return

    def _some(self) -> list[Any]:
        """The next items up to a '}' at hand if that reads as a list, else the next one.

        JSON is read from left to right: what reads as a list of whole items from an item's start
        is that, even if the '}' stands in a text.
        """
        self.peek()
        if self._dropped + self._at < self._odd_until:
            return [self.value()]
        while len(self._text) - self._at < BLOCK and self._more():
            pass
        length = len(self._text) - self._at
        # the list may end, or hold something odd: look for it in ever smaller parts
        while length > SMALLEST_PART:
            end = self._text.rfind("}", self._at, self._at + length) + 1
            try:
                items: list[Any] = orjson.loads(f"[{self._text[self._at : end]}]")
            except orjson.JSONDecodeError:
                items = []
            if items:
                self._at = end
                return items
            length //= 4
        self._odd_until = self._dropped + self._at + length
        return [self.value()]

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


def _coco_items(path: Path) -> Iterator[tuple[str, list[Any]]]:
    """(key, some items) of the lists `images` and `annotations`, in file order."""
    with opened(path) as file:
        text = _Json(path, file)
        text.take("{", "a JSON object, as in MS-COCO's captions_*.json")
        seen = set()
        while text.peek() == '"':
            key = text.value()
            text.take(":", "':' after a key")
            if key in ("images", "annotations"):
                seen.add(key)
                for items in text.blocks():
                    yield key, items
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
