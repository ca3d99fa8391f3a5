"""Readers of caption files by form: MS-COCO JSON, OpenImages narratives, tables; block by block.

Files are streamed, so memory does not grow with them. What a file is, its content decides where it
can: a Parquet file or a JSON array is one under any name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from tasks.corpus.coco import coco_items, read_coco
from tasks.corpus.csv_tables import check_csv, read_csv
from tasks.corpus.json_records import read_narratives, read_objects
from tasks.corpus.parquet_tables import check_parquet, read_parquet
from tasks.corpus.records import Block, Columns
from tasks.corpus.text_files import check_gzip
from tasks.errors import InputError

if TYPE_CHECKING:
    from tasks.workspace import Stage

Form = Literal["coco", "narratives", "table", "composed"]
PARQUET_MAGIC: Final = b"PAR1"
TABLES: Final = {
    "parquet": (".parquet", ".pq"),
    "json": (".jsonl", ".ndjson", ".json"),
    "csv": (".csv", ".tsv", ".tab", ".txt"),
}


def read_blocks(path: Path, form: Form, columns: Columns) -> Iterator[Block]:
    """The records of a caption file."""
    if form == "coco":
        return read_coco(path)
    if form == "narratives":
        return read_narratives(path)
    # composed captions lie in a table of our own
    kind = _kind_of(path)
    if kind == "parquet":
        return read_parquet(path, columns)
    return read_objects(path, columns) if kind == "json" else read_csv(path, columns)


def check_whole(path: Path, form: Form, columns: Columns) -> None:
    """Read as much of a file as tells whether it is whole and of its form, but make no records.

    Raises:
        InputError: it is not. A line or a row that is broken is a reject.

    """
    check_gzip(path)
    if form == "coco":
        for _ in coco_items(path):
            pass
    elif form == "table" and _kind_of(path) == "parquet":
        check_parquet(path, columns)
    elif form == "table" and _kind_of(path) == "csv":
        check_csv(path, columns)


def is_composed(corpus: Stage) -> bool:
    """Whether an ingest stage's captions were made, not read."""
    return bool(corpus.manifest["parameters"]["form"] == "composed")


def _kind_of(table: Path) -> str:
    with table.open("rb") as file:
        if file.read(4) == PARQUET_MAGIC:
            return "parquet"
    name = table.name.lower().removesuffix(".gz")
    for kind, endings in TABLES.items():
        if name.endswith(endings):
            return kind
    raise InputError(
        f"{table}: expected a table that ends in .csv, .tsv, .jsonl, .json or .parquet"
    )
