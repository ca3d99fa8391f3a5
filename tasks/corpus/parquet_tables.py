"""Parquet tables: the types of their columns are looked at first, then their rows in batches."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.corpus.json_records import row_columns, row_record
from tasks.corpus.records import Block, Columns, dump, make_records
from tasks.errors import InputError

ROWS_PER_BLOCK = 20_000


def read_parquet(path: Path, columns: Columns) -> Iterator[Block]:
    """Rows with the columns that are asked for; each caption of a list is one."""
    by_column, by_row = partial(row_columns, columns), partial(row_record, columns)
    for first, batch in _batches(path, columns):
        rows = _rows(batch)
        yield Block(
            range(first, first + len(rows)),
            partial(make_records, first, rows, by_column, by_row),
            partial(_start, rows, first),
            batch.nbytes,
        )


def _start(rows: list[dict[str, Any]], first: int, position: int) -> str:
    return dump(rows[position - first])


def check_parquet(path: Path, columns: Columns) -> None:
    """Read through a Parquet file.

    Raises:
        InputError: it is broken, or a column is not there or of another type.

    """
    for _ in _batches(path, columns):
        pass


def check_columns(path: Path, found: list[str], columns: Columns, hint: str = "") -> None:
    """InputError if a column is not there, or there twice; blanks in names show."""
    for field, column in (("text", columns.text), ("id", columns.id), ("image", columns.image)):
        if column is not None and found.count(column) != 1:
            state = "two columns" if column in found else "no column"
            raise InputError(
                f"{path}: {state} {column!r}; expected it for {field}_column, there are "
                f"{', '.join(repr(name[:60]) for name in found[:20])}{hint}"
            )


def _batches(path: Path, columns: Columns) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(number of the first row, rows) with the columns that are asked for."""
    try:
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a whole Parquet file: {_line(error)}") from error
    check_columns(path, schema.names, columns)
    _check_types(path, schema, columns)
    first = 1
    try:
        for batch in file.iter_batches(ROWS_PER_BLOCK, columns=columns.named):
            yield first, batch
            first += len(batch)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}, row {first}: broken Parquet: {_line(error)}") from error


def _rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """A batch's rows; a text that is no UTF-8 has lone surrogates, as no text may have."""
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except UnicodeDecodeError:
        lists = {
            name: [_decoded(value) for value in _binary(batch[name]).to_pylist()]
            for name in batch.schema.names
        }
        rows = [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    return rows


def _binary(column: pa.Array) -> pa.Array:
    if _is_list(column.type):
        return column.cast(pa.large_list(pa.large_binary()))
    return column.cast(pa.large_binary()) if _is_text(column.type) else column


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(one) for one in value]
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _check_types(path: Path, schema: pa.Schema, columns: Columns) -> None:
    for field in columns.named:
        kind = schema.field(field).type
        of_text = field == columns.text
        item = kind.value_type if of_text and _is_list(kind) else kind
        item = item.value_type if pa.types.is_dictionary(item) else item
        if not (_is_text(item) or (not of_text and _is_number(item))):
            wanted = "strings or lists of strings" if of_text else "strings or numbers"
            raise InputError(f"{path}: column {field!r} is of type {kind}; expected {wanted}")


def _is_list(kind: pa.DataType) -> bool:
    of = pa.types
    return any(is_it(kind) for is_it in (of.is_list, of.is_large_list, of.is_fixed_size_list))


def _is_text(kind: pa.DataType) -> bool:
    of = pa.types
    kinds = (of.is_string, of.is_large_string, of.is_string_view, of.is_null)
    return any(is_it(kind) for is_it in kinds)


def _is_number(kind: pa.DataType) -> bool:
    of = pa.types
    return any(is_it(kind) for is_it in (of.is_integer, of.is_floating, of.is_decimal))
