"""Ingest stage: one caption file to corpus.parquet and rejects.parquet; read = kept + rejected.

A file is gone through once, in batches. Each record is judged by itself (sql/corpus/judged.sql) and
written at once; of a caption only 8 bytes of its id stay in memory. What the whole file alone can
tell (an id that was there before, an image that is not listed) is found out at the end, and only
then, if there is such a record, captions are gone through once more.
"""

from __future__ import annotations

import functools
import logging
import re
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE

import sql
from tasks.checks import run_checks
from tasks.corpus.cleaning import cleaned
from tasks.corpus.readers import Form, check_whole, read_blocks
from tasks.corpus.records import Block, Columns, Lines
from tasks.corpus.rejects import nothing_kept, rejected_by_reason
from tasks.errors import InputError
from tasks.progress import Progress
from tasks.workspace import Recipe, Result, Stage, is_finished, recipe_of, run_stage, source_sha256

if TYPE_CHECKING:
    from tasks.settings import CaptionSource

LOG = logging.getLogger("tai")
CORPUS: Final = "corpus.parquet"
REJECTS: Final = "rejects.parquet"
LONGEST_CAPTION: Final = 10_000
RECORDS_PER_BATCH: Final = 50_000
BYTES_PER_BATCH: Final = 8 << 20
MEMORY_LIMIT: Final = "400MB"
CHECKS_OF_BATCH: Final = ("corpus/checks/texts_present",)
CHECKS: Final = ("corpus/checks/captions_once", "corpus/checks/all_accounted")
CAPTIONS: Final = pa.schema(
    {
        "caption_id": pa.string(),
        "source": pa.string(),
        "split": pa.string(),
        "image_id": pa.string(),
        "text": pa.string(),
        "file": pa.string(),
        "position": pa.int64(),
        "item": pa.int32(),
    }
)
REFUSED: Final = pa.schema(
    {"position": pa.int64(), "item": pa.int32(), "reason": pa.string(), "raw": pa.string()}
)
IMAGES: Final = pa.schema({"image_id": pa.string()})
# ids and texts hardly repeat: no dictionary, and least and greatest of them tell nothing
PARQUET: Final = {
    "compression": "zstd",
    "use_dictionary": ["source", "split", "file", "item", "reason"],
    "write_statistics": ["position"],
}


@task(name="ingest", cache_policy=NO_CACHE, task_run_name="ingest {path.name}")
def ingest_captions(source: CaptionSource, path: Path) -> Stage:
    """One caption file to corpus and rejects."""

    def work(out: Path) -> Result:
        progress = Progress(f"ingest {path.name}", 0, "records")
        counts = ingest_file(
            path,
            source.form,
            source.source,
            _split(source, path),
            out,
            file=source.path,
            columns=columns_of(source),
            progress=progress.add,
        )
        return Result(counts, {"rejected": rejected_by_reason(out / REJECTS)})

    stage = run_stage(_recipe(source, path), work)
    if stage.fresh and stage.counts["captions/rejected"]:
        why = ", ".join(f"{n:,} {reason}" for reason, n in stage.figures["rejected"].items())
        LOG.warning("ingest: %s: rejected: %s; see %s", path.name, why, stage.file(REJECTS))
    return stage


def check_captions(source: CaptionSource, path: Path) -> None:
    """Look at a caption file before any work starts, unless it was ingested already.

    Raises:
        InputError: a sentence with the file, the place, and what was expected.

    """
    if not is_finished(_recipe(source, path)):
        check_file(path, source.form, columns_of(source))


def _recipe(source: CaptionSource, path: Path) -> Recipe:
    described = source.model_dump(exclude={"path"}, exclude_defaults=True)
    return recipe_of(
        "ingest",
        __name__,
        inputs={"file": source_sha256(path)},
        parameters={**described, "split": _split(source, path), "file": source.path},
    )


def _split(source: CaptionSource, path: Path) -> str:
    return source.split or split_of(path)


def columns_of(source: CaptionSource) -> Columns:
    """A source's columns, as readers take them."""
    return Columns(
        source.text_column,
        source.id_column,
        source.image_column,
        source.delimiter,
        source.quote,
        source.header,
        source.encoding,
    )


def split_of(path: Path) -> str:
    """Split that a file's name tells: captions_train2014.json is train2014."""
    stem = path.name.removesuffix(".gz").rsplit(".", 1)[0]
    stem = stem.removeprefix("captions_").removeprefix("open_images_").removesuffix("_captions")
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-.") or "all"


def check_file(path: Path, form: Form, columns: Columns = Columns()) -> None:  # noqa: B008
    """Stop a run before work starts if a caption file is missing, cut, or has no caption.

    A bad record is rejected when the file is ingested; that there is a caption at all is looked at.

    Raises:
        InputError: a sentence with the file, the place, and what was expected.

    """
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: empty file; expected captions ({form})")
        _check(path, form, columns, path.stat().st_mtime_ns)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def ingest_file(
    path: Path,
    form: Form,
    source: str,
    split: str,
    out: Path,
    *,
    file: str | None = None,
    columns: Columns = Columns(),  # noqa: B008
    progress: Callable[[int], None] | None = None,
) -> dict[str, int]:
    """Write the captions of `path` to out/corpus.parquet and the rest to out/rejects.parquet.

    A caption's text is cleaned (tasks/corpus/cleaning.py). Its id is `{source}/{file}/{native id}`;
    what has no native id is known by the start of the SHA-256 of image id and text.

    Args:
        path: the caption file.
        form: its format.
        source: name of its origin.
        split: name of its part.
        out: an existing folder.
        file: the file as the profile names it; by default its name.
        columns: a table's columns.
        progress: called with the number of records read since the last call.

    Returns:
        Counts captions/read, captions/kept, captions/rejected, and of a text file its lines by what
        they are.

    Raises:
        InputError: the file as a whole cannot be read, or none of its records is a caption.
        DataTestError: a data test of sql/corpus/checks found a row that must not be.

    """
    spool = {name: out / f".{name}.parquet" for name in ("taken", "refused", "images", "late")}
    named = {"source": source, "split": split, "file": file or path.name}
    rules = {"takes_any_image": form != "coco", "numbers_repeats": form == "narratives"}
    with duckdb.connect() as connection:
        connection.execute("set threads = 1")
        connection.execute("set memory_limit = $1", [MEMORY_LIMIT])
        connection.execute("set temp_directory = $1", [str(out / ".duckdb")])
        blocks = read_blocks(path, form, columns)
        read, lines, repeated = _judge(blocks, connection, spool, named, progress)
        connection.register("read", _accounted(read, lines))
        connection.register("repeated", pa.table({"id_hash": repeated}))
        for name in ("taken", "images"):
            connection.read_parquet(str(spool[name])).create_view(name)
        connection.execute(sql.query("corpus/late"), rules)
        rejected = _rows(connection, "rejected_late")
        again = read_blocks(path, form, columns) if len(rejected) else ()
        with pq.ParquetWriter(spool["late"], REFUSED, **PARQUET) as sink:
            for rows in _with_raw(rejected, again):
                sink.write_table(rows)
        connection.read_parquet([str(spool["refused"]), str(spool["late"])]).create_view("refused")
        _write_corpus(connection, spool["taken"], out / CORPUS)
        _write_rejects(connection, named, out / REJECTS)
        for name in (CORPUS, REJECTS):
            connection.read_parquet(str(out / name)).create_view(Path(name).stem)
        run_checks(connection, CHECKS)
    for spooled in spool.values():
        spooled.unlink(missing_ok=True)
    kept, rejects = (pq.read_metadata(out / name).num_rows for name in (CORPUS, REJECTS))
    if not kept:
        raise InputError(nothing_kept(path, form, read, out / REJECTS))
    counts = {"captions/read": read, "captions/kept": kept, "captions/rejected": rejects}
    return counts | {f"lines/{name}": n for name, n in lines._asdict().items() if lines.read}


@functools.cache
def _check(path: Path, form: Form, columns: Columns, changed: int) -> None:
    """Read through a file as it was at `changed`, once in a process, up to its first caption."""
    check_whole(path, form, columns)
    records = (block.records for block in read_blocks(path, form, columns))
    if not any(table["text"].null_count < table.num_rows for table in records):
        # it has none: what ingest says of that
        with tempfile.TemporaryDirectory() as folder:
            ingest_file(path, form, "", "", Path(folder), columns=columns)
    LOG.info("check: %s is whole", path.name)


def _judge(
    blocks: Iterable[Block],
    connection: duckdb.DuckDBPyConnection,
    spool: Mapping[str, Path],
    named: Mapping[str, str],
    progress: Callable[[int], None] | None,
) -> tuple[int, Lines, npt.NDArray[np.uint64]]:
    """Judge each record by itself and write it; how many there were, lines, hashes of two ids."""
    read, lines, ids = 0, Lines(), array("Q")
    with (
        pq.ParquetWriter(spool["taken"], CAPTIONS, **PARQUET) as taken,
        pq.ParquetWriter(spool["refused"], REFUSED, **PARQUET) as refused,
        pq.ParquetWriter(spool["images"], IMAGES, **PARQUET) as images,
        ThreadPoolExecutor(1) as beside,
    ):
        values = {name: named[name] for name in ("source", "file")}

        def write(batch: Sequence[Block]) -> None:
            records = pa.concat_tables(block.records for block in batch)
            place = records.schema.get_field_index("text")
            texts, is_plain = cleaned(records["text"])
            records = records.set_column(place, "text", texts)
            connection.register("records", records.append_column("is_plain", is_plain))
            connection.execute(sql.query("corpus/judged"), {**values, "longest": LONGEST_CAPTION})
            run_checks(connection, CHECKS_OF_BATCH)
            taken.write_table(_rows(connection, "taken", named))
            ids.frombytes(_rows(connection, "ids")["id_hash"].to_numpy().tobytes())
            for rows in _with_raw(_rows(connection, "refused"), batch):
                refused.write_table(rows)
            shown = pa.concat_arrays([block.images for block in batch])
            if len(shown):
                images.write_table(pa.table({"image_id": shown}))

        writing: Future[None] | None = None
        for batch in _batches(blocks):
            # one batch is judged and written while the next is read
            if writing:
                writing.result()
            writing = beside.submit(write, batch)
            records = sum(len(block.records) for block in batch)
            read += records
            lines = Lines(*map(sum, zip(lines, *(block.lines for block in batch), strict=True)))
            if progress:
                progress(records)
        if writing:
            writing.result()
    return read, lines, _repeated(ids)


def _accounted(read: int, lines: Lines) -> pa.Table:
    """What sql/corpus/checks/all_accounted.sql compares."""
    counted = {"lines": lines.read, "header": lines.header, "blank": lines.blank}
    return pa.Table.from_pylist([{"records": read, **counted, "of_records": lines.records}])


def _batches(blocks: Iterable[Block]) -> Iterator[list[Block]]:
    """Blocks together: one may hold a single record, or few that are very long."""
    batch: list[Block] = []
    rows = size = 0
    for block in blocks:
        batch.append(block)
        rows += len(block.records) + len(block.images)
        size += block.size
        if rows >= RECORDS_PER_BATCH or size >= BYTES_PER_BATCH:
            yield batch
            batch, rows, size = [], 0, 0
    if batch:
        yield batch


def _rows(
    connection: duckdb.DuckDBPyConnection, query: str, values: Mapping[str, Any] | None = None
) -> pa.Table:
    found = connection.sql(sql.query(f"corpus/{query}"), params=values)
    table: pa.Table = found.to_arrow_table()
    return table


def _with_raw(rejected: pa.Table, blocks: Iterable[Block]) -> Iterator[pa.Table]:
    """The rejected records (position, item, reason) of each block, with how they begin."""
    wanted = rejected["position"].to_numpy()
    for block in blocks:
        start, end = np.searchsorted(wanted, (block.positions.start, block.positions.stop))
        if start < end:
            raw = [block.raw(int(position)) for position in wanted[start:end]]
            rows = rejected.slice(start, end - start)
            yield rows.append_column("raw", pa.array(raw, pa.string()))


def _repeated(ids: array[int]) -> npt.NDArray[np.uint64]:
    """Hashes that are there more than once; sorts `ids` in place."""
    hashes = np.frombuffer(ids, np.uint64)
    hashes.sort()
    return np.unique(hashes[1:][hashes[1:] == hashes[:-1]])


def _write_corpus(connection: duckdb.DuckDBPyConnection, taken: Path, out: Path) -> None:
    """What was taken for captions, without what turned out to be none and with the late ids."""
    if not connection.execute("select count(*) from late").fetchall()[0][0]:
        taken.rename(out)
        return
    with pq.ParquetFile(taken) as file, pq.ParquetWriter(out, CAPTIONS, **PARQUET) as sink:
        for group in range(file.num_row_groups):
            connection.register("batch", file.read_row_group(group))
            sink.write_table(_rows(connection, "corpus"))


def _write_rejects(
    connection: duckdb.DuckDBPyConnection, named: Mapping[str, str], out: Path
) -> None:
    found = connection.sql(sql.query("corpus/rejects"), params=dict(named))
    reader: pa.RecordBatchReader = found.to_arrow_reader(RECORDS_PER_BATCH)
    with pq.ParquetWriter(out, reader.schema, **PARQUET) as sink:
        for batch in reader:
            sink.write_batch(batch)
