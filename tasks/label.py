"""Label stage: pseudo-labels of captions, by matching a vocabulary's forms in DuckDB."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

import sql
from tasks.vocabulary import MAX_TOKENS, Vocabulary

LAYERS: Final = ("macros", "tokens", "matches", "kept", "labels")
CHECKS: Final = ("spans_inside_text", "spans_apart", "captions_once", "classes_of_spans")
CODE: Final = (
    "tasks/label.py",
    "tasks/vocabulary.py",
    *(f"sql/labels/{layer}.sql" for layer in LAYERS),
    *(f"sql/labels/checks/{check}.sql" for check in CHECKS),
)
CAPTIONS_PER_BATCH: Final = 250_000
SCHEMA: Final = pa.schema(
    [
        ("caption_id", pa.string()),
        ("classes", pa.list_(pa.string())),
        (
            "spans",
            pa.list_(
                pa.struct(
                    {
                        "class": pa.string(),
                        "synonym": pa.string(),
                        "start": pa.int32(),
                        "end": pa.int32(),
                    }
                )
            ),
        ),
    ]
)


def write_labels(
    corpus: Sequence[Path], vocabulary: Vocabulary, out: Path, *, memory_limit: str = "1GB"
) -> dict[str, int]:
    """Label the captions of Parquet files `corpus` and write those with a class to `out`.

    A row of `out` has a caption's id, its classes in the vocabulary's order, and the spans that
    named them, as half-open code-point offsets into the text. Rows keep the corpus's order, and the
    same input gives the same bytes.

    Returns:
        Counts; captions/read = captions/labelled + captions/without_class.

    Raises:
        RuntimeError: a data test of sql/labels/checks found a row that must not be.

    """
    read = labelled = labels = 0
    with duckdb.connect() as connection, pq.ParquetWriter(out, SCHEMA, compression="zstd") as sink:
        connection.execute("set memory_limit = $1", [memory_limit])
        connection.execute("set temp_directory = $1", [str(out.parent / ".duckdb")])
        connection.register("forms", _wide(vocabulary))
        classes = {"class": vocabulary.classes, "class_index": range(len(vocabulary.classes))}
        connection.register("classes", pa.table(classes))
        for path in corpus:
            file = pq.ParquetFile(path)
            for batch in file.iter_batches(CAPTIONS_PER_BATCH, columns=["caption_id", "text"]):
                table = pa.table(batch).append_column("row", pa.array(range(len(batch))))
                found = _label_batch(connection, table)
                sink.write_table(found)
                read += len(table)
                labelled += len(found)
                labels += len(found["classes"].combine_chunks().flatten())
    return {
        "captions/read": read,
        "captions/labelled": labelled,
        "captions/without_class": read - labelled,
        "labels": labels,
    }


def _label_batch(connection: duckdb.DuckDBPyConnection, captions: pa.Table) -> pa.Table:
    connection.register("captions", captions)
    for layer in LAYERS:
        connection.execute(sql.query(f"labels/{layer}"))
    for check in CHECKS:
        bad = connection.execute(sql.query(f"labels/checks/{check}")).fetchone()
        if bad is not None:
            raise RuntimeError(f"sql/labels/checks/{check}.sql: must give no row, gave {bad}")
    found = connection.sql("select caption_id, classes, spans from labels order by row")
    table: pa.Table = found.to_arrow_table()
    connection.unregister("captions")
    return table.cast(SCHEMA)


def _wide(vocabulary: Vocabulary) -> pa.Table:
    """The vocabulary's forms with a column per word, and the word by which they are looked up."""
    forms = vocabulary.forms
    words = forms["words"].to_pylist()
    # the longest word is the rarest, so the fewest tokens are looked at in vain
    anchors = [max(range(len(form)), key=lambda at: len(form[at])) for form in words]
    columns = {
        "length": pa.array([len(form) for form in words], pa.int32()),
        "anchor": pa.array([form[at] for form, at in zip(words, anchors, strict=True)]),
        "anchor_at": pa.array([at + 1 for at in anchors], pa.int32()),
    }
    for place in range(MAX_TOKENS):
        column = [form[place] if place < len(form) else None for form in words]
        columns[f"word_{place + 1}"] = pa.array(column, pa.string())
    for name, column in columns.items():
        forms = forms.append_column(name, column)
    return forms
