"""Ingest stage: one caption file to corpus.parquet and rejects.parquet; read = kept + rejected."""

import functools
import glob
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Literal

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

import sql
from tasks.checks import run_checks
from tasks.errors import InputError
from tasks.readers import RECORDS, Block, Columns, read_coco, read_narratives, read_table

LOG = logging.getLogger("tai")
Form = Literal["coco", "narratives", "table"]
CORPUS: Final = "corpus.parquet"
REJECTS: Final = "rejects.parquet"
LONGEST_CAPTION: Final = 10_000
ROWS_PER_BATCH: Final = 50_000
CHECKS: Final = ("captions_once", "texts_present", "all_accounted")
CODE: Final = (
    "tasks/ingest.py",
    "tasks/checks.py",
    "tasks/readers.py",
    *(f"sql/corpus/{name}.sql" for name in ("classified", "corpus", "rejected", "rejects")),
    *(f"sql/corpus/checks/{name}.sql" for name in CHECKS),
)
IMAGES: Final = pa.schema({"image_id": pa.string()})
RAW: Final = pa.schema({"position": pa.int64(), "raw": pa.string()})


def find_files(source: str, pattern: Path) -> list[Path]:
    """Files that a path or glob pattern names, sorted; InputError if there is none."""
    found = sorted(Path(name) for name in glob.glob(str(pattern)))  # noqa: PTH207
    files = [path for path in found if path.is_file()]
    if not files:
        raise InputError(f"source '{source}': no file {pattern}; give its path, or set `data`")
    return files


def split_of(path: Path) -> str:
    """Split that a file's name tells: captions_train2014.json is train2014."""
    stem = path.name.removesuffix(".gz").rsplit(".", 1)[0]
    stem = stem.removeprefix("captions_").removeprefix("open_images_").removesuffix("_captions")
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-.") or "all"


def check_file(path: Path, form: Form, columns: Columns = Columns()) -> None:  # noqa: B008
    """Read a caption file through, so that a missing or cut one stops a run before work starts.

    Raises:
        InputError: a sentence with the file, the place, and what was expected.

    """
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: empty file; expected captions ({form})")
        records = _records(path, form, columns, path.stat().st_mtime_ns)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    LOG.info("check: %s is whole, %s records", path.name, f"{records:,}")


def ingest_file(
    path: Path,
    form: Form,
    source: str,
    split: str,
    out: Path,
    *,
    columns: Columns = Columns(),  # noqa: B008
    progress: Callable[[int], None] | None = None,
) -> dict[str, int]:
    """Write the captions of `path` to out/corpus.parquet and the rest to out/rejects.parquet.

    A caption is kept as written, but for its ends' white space and its line breaks and tabs, which
    become one space. Its id is `{source}/{split}/{native id}`; the native id of a table without id
    column is the start of the SHA-256 of image id and text.

    Args:
        path: the caption file.
        form: its format.
        source: name of its origin.
        split: name of its part.
        out: an existing folder.
        columns: a table's columns.
        progress: called with the number of records read since the last call.

    Returns:
        Counts captions/read, captions/kept, captions/rejected.

    Raises:
        InputError: the file as a whole cannot be read.
        DataTestError: a data test of sql/corpus/checks found a row that must not be.

    """
    spool = {name: out / f".{name}.parquet" for name in ("records", "images", "raw")}
    _spool(_read(path, form, columns), spool, progress)
    named = {"source": source, "split": split}
    with duckdb.connect() as connection:
        connection.execute("set memory_limit = '400MB'")
        connection.execute("set temp_directory = $1", [str(out / ".duckdb")])
        for name in ("records", "images"):
            connection.read_parquet(str(spool[name])).create_view(name)
        rules: Mapping[str, Any] = {
            "longest": LONGEST_CAPTION,
            "takes_any_image": form != "coco",
            "numbers_repeats": form == "narratives",
        }
        connection.execute(sql.query("corpus/classified"), {**named, **rules})
        run_checks(connection, "corpus", CHECKS)
        rejected_at = connection.execute(sql.query("corpus/rejected")).fetchnumpy()["position"]
        _spool_raw(_read(path, form, columns) if len(rejected_at) else (), rejected_at, spool)
        connection.read_parquet(str(spool["raw"])).create_view("raw")
        kept, rejected = (
            _write(connection, query, named | {"file": path.name}, out / file)
            for query, file in (("corpus/corpus", CORPUS), ("corpus/rejects", REJECTS))
        )
    for file in spool.values():
        file.unlink()
    counts = {
        "captions/read": kept + rejected,
        "captions/kept": kept,
        "captions/rejected": rejected,
    }
    if rejected:
        LOG.warning("ingest: %s: %s records rejected, see %s", path.name, f"{rejected:,}", REJECTS)
    return counts


@functools.cache
def _records(path: Path, form: Form, columns: Columns, changed: int) -> int:
    """Records of a file as it was at `changed`, good or bad; read through once in a process."""
    return sum(len(block.records) for block in _read(path, form, columns))


def _read(path: Path, form: Form, columns: Columns) -> Iterator[Block]:
    if form == "coco":
        return read_coco(path)
    if form == "narratives":
        return read_narratives(path)
    return read_table(path, columns)


def _spool(
    blocks: Iterable[Block], files: Mapping[str, Path], progress: Callable[[int], None] | None
) -> None:
    """Write records and images to Parquet, so that memory stays bounded."""
    with (
        pq.ParquetWriter(files["records"], RECORDS, compression="lz4") as records,
        pq.ParquetWriter(files["images"], IMAGES, compression="lz4") as images,
        ThreadPoolExecutor(1) as writer,
    ):
        written: Future[None] | None = None
        for some in _gathered(blocks):
            # a group is written while the next is read
            if written:
                written.result()
            written = writer.submit(_write_group, some, records, images)
            if progress:
                progress(sum(len(block.records) for block in some))
        if written:
            written.result()


def _write_group(group: list[Block], records: pq.ParquetWriter, images: pq.ParquetWriter) -> None:
    records.write_table(pa.concat_tables(block.records for block in group))
    ids = [image for block in group for image in block.images]
    images.write_table(pa.table({"image_id": pa.array(ids, pa.string())}))


def _gathered(blocks: Iterable[Block]) -> Iterator[list[Block]]:
    """Blocks in groups of some size: a block may hold a single record."""
    group: list[Block] = []
    size = 0
    for block in blocks:
        group.append(block)
        size += len(block.records) + len(block.images)
        if size >= ROWS_PER_BATCH:
            yield group
            group, size = [], 0
    if group:
        yield group


def _spool_raw(
    blocks: Iterable[Block], positions: npt.NDArray[np.int64], files: Mapping[str, Path]
) -> None:
    """Write how the records at `positions` (in order) begin; what is kept needs no such copy."""
    with pq.ParquetWriter(files["raw"], RAW, compression="zstd") as sink:
        for block in blocks:
            at = np.flatnonzero(np.isin(block.records["position"].to_numpy(), positions))
            raw = [block.raw(int(row)) for row in at]
            found = [block.records["position"].take(at), pa.array(raw, pa.string())]
            if raw:
                sink.write_table(pa.table(found, schema=RAW))


def _write(
    connection: duckdb.DuckDBPyConnection, query: str, values: Mapping[str, str], out: Path
) -> int:
    found = connection.sql(sql.query(query), params=dict(values))
    reader: pa.RecordBatchReader = found.to_arrow_reader(ROWS_PER_BATCH)
    rows = 0
    with pq.ParquetWriter(out, reader.schema, compression="zstd") as sink:
        for batch in reader:
            sink.write_batch(batch)
            rows += len(batch)
    return rows
