"""What a caption file is, guessed from what it holds and tried with the readers themselves."""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from tasks.corpus.ingest import check_file, columns_of
from tasks.corpus.readers import PARQUET_MAGIC, read_blocks
from tasks.corpus.text_files import opened
from tasks.errors import InputError
from tasks.settings import CaptionSource

TEXTS: Final = (
    "caption", "captions", "text", "texts", "sentence", "sentences", "description", "title",
    "alt_text", "alt", "prompt", "comment", "body", "raw",
)  # fmt: skip
IMAGES: Final = (
    "image_id", "imageid", "image", "img", "file_name", "filename", "file", "image_path", "path",
    "image_url", "url",
)  # fmt: skip
"""Names of columns that hold captions, and images, likeliest first."""
DELIMITERS: Final = ("\t", ",", ";", "|")
SAMPLE: Final = 1 << 18
LINES: Final = 200
CAPTION_WORDS: Final = 1.8
"""Words that captions have on average at least; ids, paths and names have fewer."""


def guess_source(path: Path, name: str) -> CaptionSource:
    """How a caption file is to be read, as a source of a profile.

    Args:
        path: the file.
        name: name of the source.

    Raises:
        InputError: no reader finds captions in it.

    """
    if path.is_dir():
        raise InputError(f"{path}: a folder; expected caption files, for example {path}/*.csv")
    if not path.is_file():
        raise InputError(f"{path}: no such caption file")
    best: tuple[float, CaptionSource] | None = None
    problem = f"{path}: no captions found; name their form and columns in a profile (README)"
    for fields in _candidates(path):
        try:
            source = CaptionSource.model_validate({"source": name, "path": str(path)} | fields)
            check_file(path, source.form, columns_of(source))
            share = _share_kept(path, source)
        except ValidationError:
            continue
        except InputError as error:
            problem = str(error)
            continue
        if share and (best is None or share > best[0]):
            best = share, source
    if best is None:
        raise InputError(problem)
    return best[1]


def told(source: CaptionSource) -> str:
    """How a source is read, in a few words."""
    if source.form == "coco":
        return "MS-COCO captions"
    if source.form == "narratives":
        return "localized narratives"
    if not source.header and source.text_column == "1" and source.quote == "":
        return "a caption a line"
    return f"a table, captions in column {source.text_column!r}"


def _share_kept(path: Path, source: CaptionSource) -> float:
    """Share of the first records that are captions."""
    read, good = 0, 0
    for block in read_blocks(path, source.form, columns_of(source)):
        records = block.records
        is_good = pc.and_(pc.is_valid(records["text"]), pc.is_null(records["problem"]))
        read, good = read + records.num_rows, good + (pc.sum(is_good).as_py() or 0)
        if read >= LINES:
            break
    return good / read if read else 0.0


def _candidates(path: Path) -> Iterator[dict[str, Any]]:
    """Fields of sources that the file may be, likeliest first."""
    with path.open("rb") as file:
        is_parquet = file.read(4) == PARQUET_MAGIC
    if is_parquet:
        yield from _of_parquet(path)
        return
    text, encoding = _sample(path)
    if text.lstrip()[:1] in ("{", "["):
        yield from _of_json(text)
        return
    stated = {"form": "table"} | ({"encoding": encoding} if encoding else {})
    for fields in _of_lines([line for line in text.splitlines() if line.strip()][:LINES]):
        yield stated | fields


def _sample(path: Path) -> tuple[str, str | None]:
    """How the file begins, up to a line's end, and its encoding where it must be stated."""
    with opened(path) as file:
        sample = b""
        while len(sample) < SAMPLE and (block := file.read(SAMPLE - len(sample))):
            sample += block
    whole = sample.rpartition(b"\n")[0] if len(sample) == SAMPLE else sample
    try:
        return (whole or sample).decode("utf-8"), None
    except UnicodeDecodeError:
        # Excel's default in the west; it has a sign for nearly every byte
        return (whole or sample).decode("cp1252", "replace"), "cp1252"


def _of_parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a whole Parquet file: {error}") from error
    texts = [field.name for field in schema if _holds_text(field.type)]
    yield from _tables(texts, schema.names)


def _holds_text(kind: pa.DataType) -> bool:
    inner = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
    return bool(pa.types.is_string(inner) or pa.types.is_large_string(inner))


def _of_json(text: str) -> Iterator[dict[str, Any]]:
    start = text.find("{")
    try:
        first, _ = json.JSONDecoder(strict=False).raw_decode(text[start:])
    except ValueError:
        # longer than the sample: one object with lists
        first = {}
    if text.lstrip()[:1] == "{" and (not first or "annotations" in first):
        yield {"form": "coco"}
    if {"caption", "image_id", "annotator_id"} <= set(first):
        yield {"form": "narratives"}
    texts = [key for key, value in first.items() if isinstance(value, str | list)]
    yield from _tables(texts, list(first))


def _tables(texts: Sequence[str], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A table by each column that may hold captions, by its name or, failing that, any."""
    named = _by_name(texts, TEXTS)
    image = next(iter(_by_name(columns, IMAGES)), None)
    for column in named or texts:
        of_image = {"image_column": image} if image not in (None, column) else {}
        yield {"form": "table", "text_column": column} | of_image


def _by_name(columns: Sequence[str], known: Sequence[str]) -> list[str]:
    """Columns of known names, in the order of these."""
    places = {name: place for place, name in enumerate(known)}
    found = [column for column in columns if column.strip().lower() in places]
    return sorted(found, key=lambda column: places[column.strip().lower()])


def _of_lines(lines: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Ways to read delimited text, then one caption a line."""
    plain = {"header": False, "text_column": "1", "delimiter": "\t", "quote": ""}
    if not lines:
        return
    for delimiter in DELIMITERS:
        rows = _rows(lines, delimiter)
        header = rows[0]
        named = _by_name(header, TEXTS)
        if named and (len(header) > 1 or len(lines) > 1):
            if len(header) > 1 or delimiter == DELIMITERS[-1]:
                yield from _tables(named, header)
            continue
        widths = [len(row) for row in rows]
        usual = max(set(widths), key=widths.count)
        if usual < 2 or widths.count(usual) < 0.9 * len(rows):
            continue
        even = [row for row in rows if len(row) == usual]
        words = [sum(_words(row[at]) for row in even) / len(even) for at in range(usual)]
        at = words.index(max(words))
        if words[at] < CAPTION_WORDS:
            continue
        if len(header) == usual and 2 * max(map(_words, header)) <= words[at]:
            yield from _tables([header[at]], header)
        else:
            yield {"header": False, "text_column": str(at + 1), "delimiter": delimiter}
    if sum(map(_words, lines)) >= CAPTION_WORDS * len(lines):
        yield plain


def _rows(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    try:
        return list(csv.reader(lines, delimiter=delimiter))
    except csv.Error:
        return [[line] for line in lines]


def _words(cell: str) -> int:
    return len(re.findall(r"[^\W\d_]+(?:'\w+)?", cell)) if not re.search(r"[/\\]", cell) else 1
