"""Readers of caption files: MS-COCO JSON, OpenImages narratives, tables; a block at a time.

A record is what a file says of one caption, unjudged: sql/corpus/ decides what is kept. Files are
streamed, so memory does not grow with them. A block whose records are all whole is taken column by
column. If one is odd, the block is cut into small pieces, and only the pieces with such a one are
gone through record by record. Both ways give the same records.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import IO, Any, Final, Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.corpus.json_text import JsonText
from tasks.errors import InputError

BLOCK: Final = 1 << 20
ROWS_PER_BLOCK: Final = 20_000
PIECE: Final = 128
LONGEST_LINE: Final = 1 << 20
LONGEST_RAW: Final = 1000
GZIP_MAGIC: Final = b"\x1f\x8b"
_Row: TypeAlias = tuple[int, list[str]]
_Item = TypeVar("_Item")
Form = Literal["coco", "narratives", "table"]
TABLES: Final = {
    "parquet": (".parquet",),
    "jsonl": (".jsonl", ".ndjson"),
    "csv": (".csv", ".tsv"),
}


@dataclass(frozen=True)
class Columns:
    """Which columns of a table hold what."""

    text: str = "text"
    id: str | None = None
    image: str | None = None


class Record(NamedTuple):
    """One record: its 1-based place in the file, its fields, or the problem with it."""

    position: int
    native_id: str | None = None
    image_id: str | None = None
    text: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Block:
    """Some records in file order, and the ids of some entries of a COCO file's `images`.

    Args:
        positions: where its records stand; between them there may be blank lines.
        make: makes the table of records, with the columns of `RECORDS`.
        raw: how the record at a position begins in the file.
        size: about how many bytes of the file are kept in memory for that.
        images: ids.

    """

    positions: range
    make: Callable[[], pa.Table]
    raw: Callable[[int], str]
    size: int
    images: Sequence[str] = ()

    @cached_property
    def records(self) -> pa.Table:
        """The records, made when they are first asked for."""
        return self.make()


RECORDS: Final = pa.schema(
    {
        "position": pa.int64(),
        "native_id": pa.string(),
        "image_id": pa.string(),
        "text": pa.string(),
        "problem": pa.string(),
    }
)


def read_blocks(path: Path, form: Form, columns: Columns) -> Iterator[Block]:
    """The records of a caption file."""
    if form == "coco":
        return read_coco(path)
    if form == "narratives":
        return read_narratives(path)
    return read_table(path, columns)


def read_coco(path: Path) -> Iterator[Block]:
    """Annotations and images of a COCO captions file, in file order."""
    first = 1
    for key, items, size in _coco_items(path):
        if key == "images":
            ids = [str(item["id"]) for item in items if isinstance(item, dict) and "id" in item]
            yield Block(range(0), RECORDS.empty_table, str, size, ids)
        else:
            yield _block(first, items, _coco_columns, _coco_record, _dump, size)
            first += len(items)


def read_narratives(path: Path) -> Iterator[Block]:
    """Localized narratives: one JSON object a line, gzip or not."""
    return _json_lines(path, _narrative_columns, _narrative_record)


def read_table(path: Path, columns: Columns) -> Iterator[Block]:
    """Rows of a CSV, JSONL or Parquet file with a text column."""
    kind = _kind_of(path)
    if kind == "csv":
        return _csv_blocks(path, columns)
    by_column, by_row = partial(_row_columns, columns), partial(_row_record, columns)
    if kind == "jsonl":
        return _json_lines(path, by_column, by_row)
    return (
        _block(first, batch.to_pylist(), by_column, by_row, _dump, batch.nbytes)
        for first, batch in _parquet_batches(path, columns)
    )


def check_whole(path: Path, form: Form, columns: Columns) -> None:
    """Read as much of a file as tells whether it is whole and of its form, but make no records.

    Raises:
        InputError: it is not. JSON lines are, but for broken gzip: a bad line is a reject.

    """
    parts: Iterator[Any]
    if form == "coco":
        parts = _coco_items(path)
    elif form == "narratives" or _kind_of(path) == "jsonl":
        parts = _bytes_if_packed(path)
    elif _kind_of(path) == "parquet":
        parts = _parquet_batches(path, columns)
    else:
        parts = _csv_rows(path, columns)
    for _ in parts:
        pass


def _kind_of(table: Path) -> str:
    name = table.name.lower().removesuffix(".gz")
    for kind, endings in TABLES.items():
        if name.endswith(endings):
            return kind
    raise InputError(f"{table}: expected a table that ends in .csv, .tsv, .jsonl or .parquet")


def _bytes_if_packed(path: Path) -> Iterator[bytes]:
    with opened(path) as file:
        while (block := file.read(BLOCK)) and isinstance(file, gzip.GzipFile):
            yield block


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


def _block(
    first: int,
    items: Sequence[_Item],
    columns: Callable[[int, Sequence[_Item]], pa.Table | None],
    record: Callable[[int, _Item], Record | None],
    raw: Callable[[_Item], str],
    size: int,
) -> Block:
    return Block(
        range(first, first + len(items)),
        lambda: _records(first, items, columns, record),
        lambda position: raw(items[position - first]),
        size,
    )


def _records(
    first: int,
    items: Sequence[_Item],
    columns: Callable[[int, Sequence[_Item]], pa.Table | None],
    record: Callable[[int, _Item], Record | None],
) -> pa.Table:
    """Records column by column; those of a piece that has an odd one are made one by one."""
    whole = columns(first, items)
    if whole is not None:
        return whole
    if len(items) > PIECE:
        pieces = [
            _records(first + start, items[start : start + PIECE], columns, record)
            for start in range(0, len(items), PIECE)
        ]
        return pa.concat_tables(pieces).combine_chunks()
    found = (record(position, item) for position, item in enumerate(items, first))
    return _table([one for one in found if one])


def _table(records: Sequence[Record]) -> pa.Table:
    columns = list(zip(*records, strict=True)) or [()] * len(RECORDS)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, RECORDS, strict=True)]
    return pa.table(arrays, schema=RECORDS)


def _columns(
    first: int, native: pa.Array | None, images: pa.Array | None, texts: pa.Array | None
) -> pa.Table | None:
    """Records without a problem, None if there are no texts."""
    if texts is None:
        return None
    rows = len(texts)
    fields = [pa.nulls(rows, pa.string()) if one is None else one for one in (native, images)]
    positions = pa.array(np.arange(first, first + rows))
    return pa.table([positions, *fields, texts, pa.nulls(rows, pa.string())], schema=RECORDS)


def _strings(values: Sequence[Any], *kinds: type) -> pa.Array | None:
    """Texts, or texts and whole numbers, as strings; None if anything else is among them."""
    found = set(map(type, values))
    if not found <= set(kinds):
        return None
    try:
        if found == {int}:
            return pa.array(values, pa.int64()).cast(pa.string())
        return pa.array(values if found <= {str} else map(str, values), pa.string())
    except (OverflowError, UnicodeEncodeError):
        # a number of more than 64 bits, a lone surrogate
        return pa.array([_text(str(value)) for value in values], pa.string())


def _dump(item: Any) -> str:
    return printable(json.dumps(item, default=str, ensure_ascii=False))


def _coco_columns(first: int, items: Sequence[Any]) -> pa.Table | None:
    """Records of annotations that are all whole, or None."""
    try:
        ids = _strings([item["id"] for item in items], int, str)
        images = _strings([item["image_id"] for item in items], int, str)
        texts = _strings([item["caption"] for item in items], str)
    except (KeyError, TypeError, IndexError):
        return None
    whole = ids is not None and images is not None
    return _columns(first, ids, images, texts) if whole else None


def _coco_record(position: int, item: Any) -> Record:
    if not isinstance(item, dict):
        return Record(position, problem="not_an_object")
    if item.get("id") is None or item.get("image_id") is None:
        return Record(position, problem="no_id")
    return Record(
        position, _text(str(item["id"])), _text(str(item["image_id"])), _text(item.get("caption"))
    )


def _narrative_columns(first: int, items: Sequence[Any]) -> pa.Table | None:
    """Records of narratives that are all whole, or None."""
    try:
        images = _strings([item["image_id"] for item in items], str)
        annotators = _strings([item["annotator_id"] for item in items], int, str)
        texts = _strings([item["caption"] for item in items], str)
    except (KeyError, TypeError, IndexError):
        return None
    if images is None or annotators is None:
        return None
    return _columns(first, pc.binary_join_element_wise(images, annotators, "_"), images, texts)


def _narrative_record(position: int, item: Any) -> Record:
    if not isinstance(item, dict):
        return Record(position, problem="not_an_object")
    if item.get("image_id") is None or item.get("annotator_id") is None:
        return Record(position, problem="no_id")
    image = str(item["image_id"])
    return Record(position, f"{image}_{item['annotator_id']}", image, _text(item.get("caption")))


def _row_columns(columns: Columns, first: int, rows: Sequence[Any]) -> pa.Table | None:
    """Records of a table's rows that are all whole, or None."""
    named = (columns.id, columns.image)
    try:
        values = [[row[column] for row in rows] if column else [] for column in named]
        texts = _strings([row[columns.text] for row in rows], str)
    except (KeyError, TypeError, IndexError):
        return None
    native, images = (None if "" in found else _strings(found, int, str) for found in values)
    if native is None or images is None:
        return None
    return _columns(first, native if columns.id else None, images if columns.image else None, texts)


def _row_record(columns: Columns, position: int, row: Any) -> Record:
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
        first, rest = 1, b""
        while block := file.read(BLOCK):
            *lines, rest = (rest + block).split(b"\n")
            # enough to tell that it is too long
            rest = rest[:LONGEST_LINE]
            if lines:
                yield first, lines
                first += len(lines)
        if rest:
            yield first, [rest]


def _json_lines(
    path: Path,
    columns: Callable[[int, Sequence[Any]], pa.Table | None],
    record: Callable[[int, Any], Record],
) -> Iterator[Block]:
    """The records of JSON lines; blank lines are none."""
    by_column, by_line = partial(_line_columns, columns), partial(_line_record, record)
    for first, lines in _line_blocks(path):
        yield _block(first, lines, by_column, by_line, _line_start, sum(map(len, lines)))


def _line_columns(
    columns: Callable[[int, Sequence[Any]], pa.Table | None], first: int, lines: Sequence[bytes]
) -> pa.Table | None:
    """Records of lines that are all whole, or None."""
    if max(map(len, lines)) >= LONGEST_LINE:
        return None
    try:
        return columns(first, list(map(orjson.loads, lines)))
    except orjson.JSONDecodeError:
        return None


def _line_record(record: Callable[[int, Any], Record], position: int, line: bytes) -> Record | None:
    if len(line) >= LONGEST_LINE:
        return Record(position, problem="line_too_long")
    if not line.strip():
        return None
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


def _parquet_batches(path: Path, columns: Columns) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(number of the first row, rows) with the columns that are asked for."""
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: not a whole Parquet file: {error}") from error
    _check_columns(path, file.schema_arrow.names, columns)
    wanted = [c for c in (columns.text, columns.id, columns.image) if c]
    first = 1
    try:
        for batch in file.iter_batches(ROWS_PER_BLOCK, columns=list(dict.fromkeys(wanted))):
            yield first, batch
            first += len(batch)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}, row {first}: broken Parquet: {error}") from error


def _csv_blocks(path: Path, columns: Columns) -> Iterator[Block]:
    rows = _csv_rows(path, columns)
    (_, header), delimiter = next(rows), _delimiter(path)
    by_column, by_row = (partial(way, header, columns) for way in (_csv_columns, _csv_record))
    for some, size in _batched(rows):
        yield Block(
            range(some[0][0], some[-1][0] + 1),
            partial(_records, 0, some, by_column, by_row),
            partial(_csv_start, delimiter, dict(some)),
            size,
        )


def _csv_start(delimiter: str, rows: Mapping[int, Sequence[str]], position: int) -> str:
    return printable(delimiter.join(rows[position]))


def _csv_columns(
    header: Sequence[str], columns: Columns, _: int, rows: Sequence[_Row]
) -> pa.Table | None:
    """Records of rows that are all whole, or None."""
    if {len(fields) for _, fields in rows} != {len(header)}:
        return None
    at = {name: place for place, name in enumerate(header)}
    native, images, texts = (
        [fields[at[column]] for _, fields in rows] if column else [None] * len(rows)
        for column in (columns.id, columns.image, columns.text)
    )
    if "" in native:
        return None
    values = (native, [image or None for image in images], texts)
    positions = pa.array([position for position, _ in rows], pa.int64())
    fields = [pa.array(one, pa.string()) for one in values]
    return pa.table([positions, *fields, pa.nulls(len(rows), pa.string())], schema=RECORDS)


def _csv_record(header: Sequence[str], columns: Columns, _: int, row: _Row) -> Record:
    position, fields = row
    if len(fields) != len(header):
        return Record(position, problem="wrong_number_of_fields")
    return _row_record(columns, position, dict(zip(header, fields, strict=True)))


def _batched(rows: Iterable[_Row]) -> Iterator[tuple[list[_Row], int]]:
    """Some rows, and the characters in them."""
    batch: list[_Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(map(len, row[1]))
        if size >= BLOCK:
            yield batch, size
            batch, size = [], 0
    if batch:
        yield batch, size


def _csv_rows(path: Path, columns: Columns) -> Iterator[_Row]:
    """(line, fields) of the header and of each row that is not blank."""
    with opened(path) as file:
        lines = io.TextIOWrapper(file, "utf-8-sig", errors="backslashreplace", newline="")
        whole = (line.replace("\0", "\\x00") for line in lines)
        reader = csv.reader(whole, delimiter=_delimiter(path))
        try:
            header = next(reader, [])
            _check_columns(path, header, columns)
            yield reader.line_num, header
            for row in reader:
                if row:
                    yield reader.line_num, row
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num}: broken CSV: {error}") from error


def _delimiter(path: Path) -> str:
    return "\t" if path.name.lower().removesuffix(".gz").endswith(".tsv") else ","


def _check_columns(path: Path, found: list[str], columns: Columns) -> None:
    for field, column in (("text", columns.text), ("id", columns.id), ("image", columns.image)):
        if column is not None and column not in found:
            raise InputError(
                f"{path}: no column {column!r}; expected it for {field}_column, there are "
                f"{', '.join(found[:20])}"
            )


def _coco_items(path: Path) -> Iterator[tuple[str, list[Any], int]]:
    """(key, some items, their characters) of the lists `images` and `annotations`, in order."""
    with opened(path) as file:
        text = JsonText(path, file)
        text.take("{", "a JSON object, as in MS-COCO's captions_*.json")
        seen = set()
        while text.peek() == '"':
            key = text.value()
            text.take(":", "':' after a key")
            if key in ("images", "annotations"):
                seen.add(key)
                start = text.place
                for number, items in enumerate(text.blocks()):
                    if key == "annotations" and number == 0:
                        _check_annotation(path, items[0])
                    yield key, items, text.place - start
                    start = text.place
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


def _check_annotation(path: Path, item: Any) -> None:
    if isinstance(item, dict) and "caption" not in item and "category_id" in item:
        raise InputError(
            f"{path}: its annotations are objects without 'caption'; expected a captions file "
            "(captions_*.json), this looks like instances"
        )
