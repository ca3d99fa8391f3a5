"""Records: what a caption file says of each caption, unjudged; sql/corpus/ decides what is kept.

A block whose records are all whole is taken column by column. If one is odd, the block is cut into
small pieces, and only the pieces with such a one are gone through record by record. Both ways give
the same records.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

PIECE: Final = 128
LONGEST_RAW: Final = 1000
LONGEST_ID: Final = 1000
MOST_DIGITS: Final = 4000
EXACT: Final = 2.0**53
# as pandas writes whole numbers of a column that once had a hole
WHOLE_FLOAT: Final = r"^(-?\d+)\.0+$"
UNTIDY: Final = r"^\s|\s$|^-?\d+\.0+$"
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Columns:
    """Which columns of a table hold what, and how it is written where the profile says so."""

    text: str = "text"
    id: str | None = None
    image: str | None = None
    delimiter: str | None = None
    quote: str | None = None
    """A sign; '' where quotes are just characters; None: found out."""
    header: bool = True
    """False: the columns are called 1, 2, ..."""
    encoding: str | None = None

    @property
    def named(self) -> list[str]:
        """The columns that are read."""
        return list(dict.fromkeys(c for c in (self.text, self.id, self.image) if c))


class Record(NamedTuple):
    """One record: its 1-based place in the file, its fields, or the problem with it."""

    position: int
    item: int = 0
    """Its 1-based place among several captions at one position; 0: there is one."""
    native_id: str | None = None
    image_id: str | None = None
    text: str | None = None
    problem: str | None = None


class Broken(NamedTuple):
    """What stands where a record should, and cannot be read."""

    text: str


class Lines(NamedTuple):
    """Physical lines of a text file, counted one by one by what they are."""

    read: int = 0
    header: int = 0
    blank: int = 0
    records: int = 0


NO_LINES: Final = Lines()
# pa.array() would import pandas
NO_IDS: Final = pa.nulls(0, pa.string())


@dataclass(frozen=True)
class Block:
    """Some records in file order, and the ids of some entries of a COCO file's `images`.

    Args:
        positions: where its records stand; between them there may be blank lines.
        make: makes the table of records, with the columns of `RECORDS`.
        raw: how the record at a position begins in the file.
        size: about how many bytes of the file are kept in memory for that.
        images: ids.
        lines: those of the file that it takes.

    """

    positions: range
    make: Callable[[], pa.Table]
    raw: Callable[[int], str]
    size: int
    images: pa.Array = field(default_factory=lambda: NO_IDS)
    lines: Lines = NO_LINES

    @cached_property
    def records(self) -> pa.Table:
        """The records, made when they are first asked for."""
        return self.make()


RECORDS: Final = pa.schema(
    {
        "position": pa.int64(),
        "item": pa.int32(),
        "native_id": pa.string(),
        "image_id": pa.string(),
        "text": pa.string(),
        "problem": pa.string(),
    }
)


def make_records(
    first: int,
    items: Sequence[_Item],
    columns: Callable[[int, Sequence[_Item]], pa.Table | None],
    records: Callable[[int, _Item], Iterable[Record]],
    exact: Callable[[], Sequence[Any]] | None = None,
    skipped: int = 0,
) -> pa.Table:
    """Records column by column; those of a piece that has an odd one are made one by one.

    Args:
        first: position of the first item.
        items: what the records are made from.
        columns: makes the records of items that are all whole, or gives None.
        records: makes those of any item.
        exact: the items again for that, read so that nothing is lost (slower).
        skipped: items of `exact` that stand before these.

    """
    whole = columns(first, items)
    if whole is not None:
        return whole
    if len(items) > PIECE:
        pieces = [
            make_records(
                first + start,
                items[start : start + PIECE],
                columns,
                records,
                exact,
                skipped + start,
            )
            for start in range(0, len(items), PIECE)
        ]
        return pa.concat_tables(pieces).combine_chunks()
    odd = exact()[skipped : skipped + len(items)] if exact else items
    return table_of([one for place, item in enumerate(odd, first) for one in records(place, item)])


def table_of(records: Sequence[Record]) -> pa.Table:
    """Records as a table."""
    columns = list(zip(*records, strict=True)) or [()] * len(RECORDS)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, RECORDS, strict=True)]
    return pa.table(arrays, schema=RECORDS)


def whole_records(
    positions: pa.Array, native: pa.Array | None, images: pa.Array | None, texts: pa.Array
) -> pa.Table:
    """Records without a problem, one at each position."""
    rows = len(texts)
    fields = [pa.nulls(rows, pa.string()) if one is None else one for one in (native, images)]
    items = pa.array(np.zeros(rows, np.int32))
    return pa.table([positions, items, *fields, texts, pa.nulls(rows, pa.string())], schema=RECORDS)


def places(first: int, rows: int) -> pa.Array:
    """The positions from `first` on."""
    return pa.array(np.arange(first, first + rows))


def strings(values: Sequence[Any]) -> pa.Array | None:
    """Texts as strings; None if anything else is among them, or a text that no file can hold."""
    if not set(map(type, values)) <= {str}:
        return None
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        # a lone surrogate
        return None


def ids(values: Sequence[Any]) -> pa.Array | None:
    """Ids as `id_of` writes them; None if one is odd."""
    kinds = set(map(type, values))
    if kinds == {int}:
        try:
            return pa.array(values, pa.int64()).cast(pa.string())
        except OverflowError:
            return pa.array(map(str, values), pa.string())
    if float in kinds and kinds <= {int, float}:
        whole = all(abs(value) < EXACT and value == int(value) for value in values)
        return pa.array([str(int(value)) for value in values]) if whole else None
    if not kinds <= {int, str}:
        return None
    return tidy(strings(values if kinds == {str} else [str(value) for value in values]))


def tidy(found: pa.Array | None) -> pa.Array | None:
    """Ids that are texts as `id_of` writes them; None if one is blank or too long."""
    if found is None or not len(found):
        return found
    data = found.buffers()[2]
    # letters and digits alone, as most ids are, need no second look
    is_simple = data is not None and data.to_pybytes().isalnum()
    if not is_simple and pc.any(pc.match_substring_regex(found, UNTIDY)).as_py():
        trimmed = pc.utf8_trim_whitespace(found)
        found = pc.replace_substring_regex(trimmed, WHOLE_FLOAT, r"\1")
    lengths = pc.min_max(pc.binary_length(found)).as_py()
    return None if lengths["min"] == 0 or lengths["max"] > LONGEST_ID else found


def id_of(value: Any) -> str | None:
    """An id as it is compared: 1, 1.0 and "1" are one; None if it is none."""
    if isinstance(value, str):
        text = re.sub(WHOLE_FLOAT, r"\1", value.strip())
        return text if 0 < len(text) <= LONGEST_ID else None
    if isinstance(value, bool):
        return None
    if isinstance(value, float | Decimal):
        if not math.isfinite(value):
            return None
        return str(int(value)) if value == int(value) else str(value)
    return str(value) if isinstance(value, int) and value.bit_length() < MOST_DIGITS else None


def record_of(position: int, native: str | None, image: str | None, text: Any) -> list[Record]:
    """The record of one caption, or of each of a list of captions."""
    if isinstance(text, list) and text:
        return [
            one._replace(item=item, native_id=native and f"{native}#{item}")
            for item, part in enumerate(text, 1)
            for one in record_of(position, native, image, None if isinstance(part, list) else part)
        ]
    text = text if isinstance(text, str) else None
    if not all(is_utf8(one) for one in (native, image, text)):
        return [Record(position, problem="not_utf8")]
    return [Record(position, 0, native, image, text)]


def is_utf8(text: str | None) -> bool:
    """True if a file can hold it: no lone surrogate, which stands for a byte that is no text."""
    if text is None or text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    """The first characters of a text, with signs that do not print spelled out."""
    start = text[:LONGEST_RAW]
    if not start.isprintable():
        odd = "surrogateescape" if _escapes(start) else "backslashreplace"
        start = start.encode("utf-8", odd).decode("utf-8", "backslashreplace")
        start = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in start)
    return start[:LONGEST_RAW]


def _escapes(text: str) -> bool:
    return all(not "\ud800" <= c <= "\udfff" or "\udc80" <= c <= "\udcff" for c in text)


def dump(item: Any) -> str:
    """How a record is shown."""
    if isinstance(item, Broken):
        return printable(item.text)
    return printable(json.dumps(item, default=str, ensure_ascii=False))
