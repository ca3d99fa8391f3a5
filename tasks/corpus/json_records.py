"""JSON lines and JSON arrays: OpenImages narratives, and tables of objects with a text field."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from tasks.corpus import exact_json
from tasks.corpus.json_text import JsonText, Piece
from tasks.corpus.records import (
    LONGEST_RAW,
    Block,
    Broken,
    Columns,
    Lines,
    Record,
    dump,
    id_of,
    ids,
    make_records,
    places,
    printable,
    record_of,
    strings,
    whole_records,
)
from tasks.corpus.text_files import LONGEST_LINE, line_blocks, opened

ByColumn: TypeAlias = Callable[[int, Sequence[Any]], pa.Table | None]
ByRecord: TypeAlias = Callable[[int, Any], list[Record]]
BOM = b"\xef\xbb\xbf"


def read_narratives(path: Path) -> Iterator[Block]:
    """Localized narratives: one JSON object a line, or an array of them."""
    return _read(path, _narrative_columns, _narrative_record)


def read_objects(path: Path, columns: Columns) -> Iterator[Block]:
    """Rows of a table that are JSON objects, one a line or in an array."""
    return _read(path, partial(row_columns, columns), partial(row_record, columns))


def row_columns(columns: Columns, first: int, rows: Sequence[Any]) -> pa.Table | None:
    """Records of a table's rows that are all whole, or None."""
    try:
        native = ids([row[columns.id] for row in rows]) if columns.id else None
        images = ids([row[columns.image] for row in rows]) if columns.image else None
        texts = strings([row[columns.text] for row in rows])
    except (KeyError, TypeError, IndexError):
        return None
    odd = texts is None or (columns.id and native is None) or (columns.image and images is None)
    return None if odd else whole_records(places(first, len(rows)), native, images, texts)


def row_record(columns: Columns, position: int, row: Any) -> list[Record]:
    """The records of one row, whatever it is."""
    if not isinstance(row, dict):
        problem = "not_json" if isinstance(row, Broken) else "not_an_object"
        return [Record(position, problem=problem)]
    native = id_of(row.get(columns.id)) if columns.id else None
    image = id_of(row.get(columns.image)) if columns.image else None
    if columns.id and native is None:
        return [Record(position, problem="no_id")]
    return record_of(position, native, image, row.get(columns.text))


def _narrative_columns(first: int, items: Sequence[Any]) -> pa.Table | None:
    """Records of narratives that are all whole, or None."""
    try:
        images = ids([item["image_id"] for item in items])
        annotators = ids([item["annotator_id"] for item in items])
        texts = strings([item["caption"] for item in items])
    except (KeyError, TypeError, IndexError):
        return None
    if images is None or annotators is None or texts is None:
        return None
    natives = pc.binary_join_element_wise(images, annotators, "_")
    return whole_records(places(first, len(items)), natives, images, texts)


def _narrative_record(position: int, item: Any) -> list[Record]:
    if not isinstance(item, dict):
        problem = "not_json" if isinstance(item, Broken) else "not_an_object"
        return [Record(position, problem=problem)]
    image, annotator = id_of(item.get("image_id")), id_of(item.get("annotator_id"))
    if image is None or annotator is None:
        return [Record(position, problem="no_id")]
    return record_of(position, f"{image}_{annotator}", image, item.get("caption"))


def is_array(path: Path) -> bool:
    """True if the file is one JSON array and not JSON lines, however it is called."""
    with opened(path) as file:
        start = file.read(1 << 16).lstrip()
    if not start.startswith(b"["):
        return False
    first, _, rest = start.partition(b"\n")
    try:
        # a line that is an array, and more behind it, is no file that is one
        return isinstance(orjson.loads(first), list) and not rest.strip()
    except orjson.JSONDecodeError:
        return True


def _read(path: Path, columns: ByColumn, record: ByRecord) -> Iterator[Block]:
    if is_array(path):
        return _array(path, columns, record)
    return _lines(path, columns, record)


def _array(path: Path, columns: ByColumn, record: ByRecord) -> Iterator[Block]:
    first = 1
    with opened(path) as file:
        text = JsonText(path, file)
        start = 0
        for piece in text.blocks():
            yield _block(first, piece, columns, record, text.place - start)
            first, start = first + len(piece.items), text.place
        if text.peek():
            raise text.fail("nothing after the array")


def _block(first: int, piece: Piece, columns: ByColumn, record: ByRecord, size: int) -> Block:
    return Block(
        range(first, first + len(piece.items)),
        lambda: make_records(first, piece.items, columns, record, lambda: piece.exact),
        lambda position: dump(piece.exact[position - first]),
        size,
    )


def _lines(path: Path, columns: ByColumn, record: ByRecord) -> Iterator[Block]:
    """The records of JSON lines; blank lines are none."""
    by_column, by_line = partial(_line_columns, columns), partial(_line_records, record)
    for first, lines in line_blocks(path):
        filled = sum(map(bool, map(bytes.strip, lines)))
        yield Block(
            range(first, first + len(lines)),
            partial(make_records, first, lines, by_column, by_line),
            partial(_line_start, lines, first),
            sum(map(len, lines)),
            lines=Lines(len(lines), 0, len(lines) - filled, filled),
        )


def _line_columns(columns: ByColumn, first: int, lines: Sequence[bytes]) -> pa.Table | None:
    """Records of lines that are all whole, or None."""
    if max(map(len, lines)) >= LONGEST_LINE:
        return None
    try:
        return columns(first, list(map(orjson.loads, lines)))
    except orjson.JSONDecodeError:
        return None


def _line_records(record: ByRecord, position: int, line: bytes) -> list[Record]:
    if len(line) >= LONGEST_LINE:
        return [Record(position, problem="line_too_long")]
    text = line.removeprefix(BOM).strip()
    if not text:
        return [] if not line.strip() else [Record(position, problem="not_json")]
    try:
        return record(position, exact_json.loads(text.decode("utf-8", "surrogateescape")))
    except ValueError:
        return [Record(position, problem="not_json" if _is_utf8(line) else "not_utf8")]


def _line_start(lines: Sequence[bytes], first: int, position: int) -> str:
    line = lines[position - first][: 4 * LONGEST_RAW]
    return printable(line.decode("utf-8", "backslashreplace").strip())


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
