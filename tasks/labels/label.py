"""Label stage: pseudo-labels of captions, by matching a vocabulary's forms in DuckDB."""

import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE

import sql
from tasks.checks import run_checks
from tasks.corpus.ingest import CORPUS
from tasks.labels.synonyms import ANY_WORD, BREAK, MAX_TOKENS
from tasks.labels.vocabulary import FORMS_SCHEMA, Vocabulary
from tasks.progress import Progress
from tasks.workspace import Result, Stage, recipe_of, run_stage

LABELS: Final = "labels.parquet"
COUNTED: Final = ("tokenised", "tokens", "frequency")
LAYERS: Final = (
    "tokenised",
    "tokens",
    "candidates",
    "matches",
    "clashes",
    "kept",
    "named",
    "labels",
)
CHECKS: Final = (
    "labels/checks/classes_known",
    "labels/checks/spans_apart",
    "labels/checks/spans_inside_text",
)
CAPTIONS_PER_BATCH: Final = 125_000
FEWEST_PER_BATCH: Final = 25_000
CAPTIONS_COUNTED: Final = 5_000
MEMORY_LIMIT: Final = "400MB"
WIDE: Final = pa.schema(
    [
        *FORMS_SCHEMA,
        ("length", pa.int32()),
        ("rank", pa.int32()),
        ("anchor", pa.string()),
        ("anchor_at", pa.int32()),
        ("second", pa.string()),
        ("second_at", pa.int32()),
        ("pair", pa.int32()),
        ("ends_in_break", pa.bool_()),
        ("is_settled", pa.bool_()),
        ("kind", pa.string()),
        ("taken_from", pa.int32()),
        ("taken_to", pa.int32()),
        *((f"word_{place + 1}", pa.string()) for place in range(MAX_TOKENS)),
    ]
)
SPAN: Final = pa.struct(
    {"class": pa.string(), "synonym": pa.string(), "start": pa.int32(), "end": pa.int32()}
)
SCHEMA: Final = pa.schema(
    {"caption_id": pa.string(), "classes": pa.list_(pa.string()), "spans": pa.list_(SPAN)}
)
# columns of a few values each, again and again
REPEATED: Final = ["classes.list.element", "spans.list.element.class", "spans.list.element.synonym"]


@task(name="label", cache_policy=NO_CACHE, task_run_name="label {corpus.key}")
def label_captions(corpus: Stage, vocabulary: Vocabulary) -> Stage:
    """Pseudo-labels of one file's captions."""

    def work(out: Path) -> Result:
        progress = Progress("label", corpus.counts["captions/kept"], "captions")
        counts, classes = write_labels(
            [corpus.file(CORPUS)], vocabulary, out / LABELS, progress=progress.add
        )
        return Result(counts, {"classes": classes})

    recipe = recipe_of(
        "label",
        __name__,
        inputs={"corpus": corpus.digest, "vocabulary": vocabulary.digest},
        parameters={},
    )
    return run_stage(recipe, work)


def write_labels(
    corpus: Sequence[Path],
    vocabulary: Vocabulary,
    out: Path,
    *,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[dict[str, int], dict[str, int]]:
    """Label the captions of Parquet files `corpus` and write those with a class to `out`.

    A row of `out` has a caption's id, its classes in the vocabulary's order, and the spans that
    named them, as half-open code-point offsets into the text. Rows keep the corpus's order, and the
    same input gives the same bytes, whatever the number of workers.

    Args:
        corpus: Parquet files with caption_id and text.
        vocabulary: the forms to look for.
        out: the Parquet file to write.
        workers: batches labelled at once; by default as many as there are cores.
        progress: called with the number of captions labelled since the last call.

    Returns:
        Counts, where captions/read = captions/labelled + captions/without_class, and the number
        of captions that name each class, in the vocabulary's order.

    Raises:
        DataTestError: a data test of sql/labels/checks found a row that must not be.

    """
    read = labelled = 0
    named: Counter[str] = Counter()
    cores = workers or len(os.sched_getaffinity(0))
    labeller = _Labeller(vocabulary, out.parent / ".duckdb")
    with (
        pq.ParquetWriter(out, SCHEMA, compression="zstd", use_dictionary=REPEATED) as sink,
        labeller,
    ):
        for captions, found in _in_order(labeller, _batches(corpus), cores):
            sink.write_table(found)
            read += captions
            labelled += len(found)
            times = found["classes"].combine_chunks().flatten().value_counts()
            named.update({str(one["values"]): one["counts"].as_py() for one in times})
            if progress:
                progress(captions)
    counts = {
        "captions/read": read,
        "captions/labelled": labelled,
        "captions/without_class": read - labelled,
        "labels": named.total(),
    }
    return counts, {label: named[label] for label in vocabulary.classes}


def _batches(corpus: Sequence[Path]) -> Iterator[pa.RecordBatch]:
    for path in corpus:
        with pq.ParquetFile(path) as file:
            size = _batch_size(file.metadata.num_rows)
            yield from file.iter_batches(size, columns=["caption_id", "text"])


def _batch_size(captions: int) -> int:
    """Captions per batch: in fours of one size, so that 1, 2 or 4 cores end together."""
    fours = -(-captions // (4 * CAPTIONS_PER_BATCH))
    even = -(-captions // max(1, 4 * fours))
    return max(even, min(FEWEST_PER_BATCH, CAPTIONS_PER_BATCH))


def _in_order(
    labeller: "_Labeller", batches: Iterator[pa.RecordBatch], workers: int
) -> Iterator[tuple[int, pa.Table]]:
    """(captions, labels) of each batch in order; one more batch waits than there are workers."""
    waiting: deque[tuple[int, Future[pa.Table]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for batch in batches:
            if len(waiting) > workers:
                captions, future = waiting.popleft()
                yield captions, future.result()
            waiting.append((len(batch), pool.submit(labeller.label, batch)))
        for captions, future in waiting:
            yield captions, future.result()


class _Labeller:
    """A DuckDB connection per thread, each of one core: batches side by side keep all cores busy.

    DuckDB's own threads would leave cores idle while tables go in and out.
    """

    def __init__(self, vocabulary: Vocabulary, spill: Path) -> None:
        self._vocabulary = vocabulary
        self._classes = pa.array(vocabulary.classes, pa.string())
        self._synonyms = vocabulary.forms["synonym"].combine_chunks()
        self._spill = spill
        self._here = threading.local()
        self._opened: list[duckdb.DuckDBPyConnection] = []
        self._wide = _wide_of(vocabulary.digest)

    def __enter__(self) -> "_Labeller":
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._opened:
            connection.close()

    def label(self, batch: pa.RecordBatch) -> pa.Table:
        """Rows of `SCHEMA` for those captions that name a class."""
        captions = pa.table(batch).append_column("row", pa.array(range(len(batch)), pa.int32()))
        connection = self._connection(captions)
        connection.register("captions", captions)
        for layer in LAYERS:
            connection.execute(sql.query(f"labels/{layer}"))
        run_checks(connection, CHECKS)
        labels = connection.table("labels").to_arrow_table()
        connection.unregister("captions")
        return self._by_caption(labels, batch["caption_id"])

    def _by_caption(self, labels: pa.Table, ids: pa.Array) -> pa.Table:
        """Rows of `SCHEMA` from rows of sql/labels/labels.sql."""
        rows, indices = (labels[of].to_numpy().astype(np.int64) for of in ("row", "class_index"))
        starts = np.flatnonzero(np.diff(rows, prepend=-1))
        captions = rows[starts]
        # a class that is named twice is one class
        classes = len(self._vocabulary.classes)
        keys = np.sort(rows * classes + indices)
        distinct = keys[np.flatnonzero(np.diff(keys, prepend=-1))]
        parts = [
            self._classes.take(labels["class_index"].combine_chunks()),
            self._synonyms.take(labels["form"].combine_chunks()),
            labels["span_start"].combine_chunks(),
            labels["span_end"].combine_chunks(),
        ]
        return pa.table(
            [
                ids.take(pa.array(captions)),
                _lists(
                    np.searchsorted(distinct, captions * classes),
                    self._classes.take(pa.array(distinct % classes)),
                ),
                _lists(starts, pa.StructArray.from_arrays(parts, fields=list(SPAN))),
            ],
            schema=SCHEMA,
        )

    def _connection(self, captions: pa.Table) -> duckdb.DuckDBPyConnection:
        """The connection of this thread; the process's first captions say which words are rare."""
        opened: duckdb.DuckDBPyConnection | None = getattr(self._here, "connection", None)
        if opened is not None:
            return opened
        connection = duckdb.connect()
        self._here.connection = connection
        self._opened.append(connection)
        connection.execute("set threads = 1")
        # a join's right side is held in a table: as the queries have it, the narrower one
        connection.execute("set disabled_optimizers = 'build_side_probe_side'")
        connection.execute("set memory_limit = $1", [MEMORY_LIMIT])
        connection.execute("set temp_directory = $1", [str(self._spill)])
        connection.execute(sql.query("labels/macros"))
        with self._wide.counting:
            if self._wide.forms is None:
                self._wide.forms = _wide(self._vocabulary, _frequency(connection, captions))
        connection.register("forms", self._wide.forms)
        connection.execute(sql.query("labels/anchors"))
        classes = self._vocabulary.classes
        table = pa.table({"class": classes, "class_index": range(len(classes))})
        connection.register("classes", table)
        return connection


@dataclass
class _WideForms:
    """A vocabulary's forms as the queries take them, once they are worked out."""

    counting: threading.Lock = field(default_factory=threading.Lock)
    forms: pa.Table | None = None


@lru_cache(maxsize=1)
def _wide_of(_vocabulary: str) -> _WideForms:
    """Kept by the vocabulary's digest: all files of a corpus share it."""
    return _WideForms()


def _frequency(connection: duckdb.DuckDBPyConnection, captions: pa.Table) -> dict[str, int]:
    """How often each word stands in some of the captions."""
    connection.register("captions", captions.slice(0, CAPTIONS_COUNTED))
    for layer in COUNTED:
        found = connection.execute(sql.query(f"labels/{layer}"))
    return dict(found.fetchall())


def _lists(starts: npt.NDArray[np.int64], values: pa.Array) -> pa.ListArray:
    """Lists that begin at `starts` of `values`, the last one at its end."""
    offsets = np.append(starts, len(values)).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _wide(vocabulary: Vocabulary, frequency: Mapping[str, int]) -> pa.Table:
    """The vocabulary's forms with a column per word, and the two that are looked up first.

    `frequency` counts words in some captions: looking up a form by its rarest word makes the fewest
    attempts. It changes nothing but the time.
    """
    forms = vocabulary.forms.to_pylist()
    pairs: dict[tuple[str, int], int] = {}
    for form in forms:
        words, before, behind = form["words"], form["words_before"], form["words_behind"]
        concrete = [at for at, word in enumerate(words) if word not in (ANY_WORD, BREAK)]
        anchor = min(concrete, key=lambda at: (frequency.get(words[at], 0), -len(words[at]), at))
        form["length"] = len(words)
        form["rank"] = 2 * len(words) - words.count(ANY_WORD)
        form["anchor"], form["anchor_at"] = words[anchor], anchor + 1
        others = [at for at in concrete if at != anchor] or [anchor]
        second = max(others, key=lambda at: len(words[at]))
        form["second"], form["second_at"] = words[second], second + 1
        form["pair"] = pairs.setdefault((words[anchor], second - anchor), len(pairs))
        form["is_settled"] = len({anchor, second}) == len(words)
        form["ends_in_break"] = words[-1] == BREAK
        if before + behind < len(words):
            form["kind"] = "takes"
            form["taken_from"], form["taken_to"] = before + 1, len(words) - behind
        else:
            # all context: the place of the token that follows it, or that it follows
            form["kind"] = "before" if before else "behind"
            form["taken_from"] = form["taken_to"] = len(words) + 1 if before else 0
        for place in range(MAX_TOKENS):
            form[f"word_{place + 1}"] = words[place] if place < len(words) else None
    return pa.Table.from_pylist(forms, schema=WIDE)
