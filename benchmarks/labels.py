"""Labels by SQL: against a loop with NLTK in the same run, and how time and memory grow.

Where NLTK finds its averaged_perceptron_tagger_eng and wordnet (in $NLTK_DATA), the loop uses them.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.captions import made_up
from benchmarks.memory import most_mb
from benchmarks.nltk_loop import Loop
from tasks.labels.label import write_labels
from tasks.labels.vocabulary import Vocabulary, builtin_vocabulary_path, load_vocabulary

DEVELOPMENT = (
    Path(__file__)
    .parents[2]
    .joinpath("shared", "data", "coco_mini", "annotations", "captions_val2017.json")
)
LOOPED = 5_000
REPLICATED = 500_000
BLOCK = 100_000


def captions_of(file: Path | None, vocabulary: Vocabulary) -> list[str]:
    """Texts of a COCO captions file, or made-up ones."""
    if file is None:
        return made_up(25_014, vocabulary.prompt_names)[0]
    return [entry["caption"].strip() for entry in json.loads(file.read_text())["annotations"]]


def write_captions(texts: Sequence[str], count: int, out: Path) -> None:
    """`count` captions, the texts again and again, none with the same neighbours in a batch."""
    schema = pa.schema({"caption_id": pa.string(), "text": pa.string()})
    with pq.ParquetWriter(out, schema, compression="zstd") as sink:
        for start in range(0, count, BLOCK):
            places = range(start, min(start + BLOCK, count))
            rows = [texts[place % len(texts)] for place in places]
            sink.write_table(pa.table([[f"c/{p}" for p in places], rows], schema=schema))


def labels_of(file: Path) -> Iterator[tuple[str, set[str]]]:
    """(caption_id, classes) of each labelled caption."""
    for row in pq.read_table(file, columns=["caption_id", "classes"]).to_pylist():
        yield row["caption_id"], set(row["classes"])


def against_nltk(texts: Sequence[str], vocabulary: Vocabulary, folder: Path) -> dict[str, float]:
    """Captions per second of both ways, turn by turn, and how far their labels agree."""
    write_captions(texts, REPLICATED, folder / "many.parquet")
    write_captions(texts, LOOPED, folder / "few.parquet")
    write_labels([folder / "few.parquet"], vocabulary, folder / "few-labels.parquet")
    loop = Loop(vocabulary, texts)
    # the tagger's million weights are no litter: each collection, in either way, would see them all
    gc.freeze()
    by_loop: list[set[str]] = []
    loop_s = sql_s = loop_cpu = sql_cpu = 0.0
    # the loop's half before and its half after, so that both meet the same machine
    for half in (texts[: LOOPED // 2], texts[LOOPED // 2 : LOOPED]):
        start, cpu = time.perf_counter(), time.process_time()
        by_loop += [loop.label(text) for text in half]
        loop_s += time.perf_counter() - start
        loop_cpu += time.process_time() - cpu
        if not sql_s:
            start, cpu = time.perf_counter(), time.process_time()
            write_labels([folder / "many.parquet"], vocabulary, folder / "many-labels.parquet")
            sql_s = time.perf_counter() - start
            sql_cpu = time.process_time() - cpu
    gc.unfreeze()
    by_sql = dict(labels_of(folder / "few-labels.parquet"))
    pairs = [(by_sql.get(f"c/{place}", set()), found) for place, found in enumerate(by_loop)]
    common = sum(len(one & other) for one, other in pairs)
    loop_rate, sql_rate = len(by_loop) / loop_s, REPLICATED / sql_s
    print(f"the loop: {', '.join(loop.parts)}, phrase look-up; {len(by_loop):,} captions")
    loop_core, sql_core = len(by_loop) / loop_cpu, REPLICATED / sql_cpu
    print(f"{'':10}{'captions/s':>12}{'a core, busy':>14}")
    print(f"NLTK loop {loop_rate:>12,.0f}{loop_core:>14,.0f}")
    print(f"SQL       {sql_rate:>12,.0f}{sql_core:>14,.0f}")
    return {
        "nltk_per_s": round(loop_rate),
        "sql_per_s": round(sql_rate),
        "ratio": round(sql_rate / loop_rate, 1),
        "ratio_of_cores": round(sql_core / loop_core, 1),
        "same_classes": round(sum(a == b for a, b in pairs) / len(pairs), 4),
        "common_of_nltk": round(common / max(1, sum(len(b) for _, b in pairs)), 4),
        "common_of_sql": round(common / max(1, sum(len(a) for a, _ in pairs)), 4),
    }


def growth(file: Path | None, sizes: Sequence[int]) -> list[dict[str, float]]:
    """Seconds and peak memory of labelling, each size in a process of its own."""
    rows = []
    print(f"{'captions':>12} {'seconds':>9} {'CPU s':>7} {'per s':>9} {'peak MB':>8}")
    for size in sizes:
        command = [sys.executable, "-m", "benchmarks.labels", "--only", str(size)]
        command += ["--captions", str(file)] if file else []
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
        row = json.loads(done.stdout.splitlines()[-1])
        rows.append(row)
        print(
            f"{size:>12,} {row['seconds']:>9.1f} {row['cpu_seconds']:>7.1f} {row['per_s']:>9,} "
            f"{row['peak_mb']:>8,}",
            flush=True,
        )
    return rows


def one_size(texts: Sequence[str], vocabulary: Vocabulary, size: int, folder: Path) -> None:
    """Label `size` captions and print a JSON line."""
    write_captions(texts, size, folder / "captions.parquet")
    start, cpu = time.perf_counter(), time.process_time()
    counts, _ = write_labels([folder / "captions.parquet"], vocabulary, folder / "labels.parquet")
    seconds = time.perf_counter() - start
    cpu = time.process_time() - cpu
    row = {"captions": size, "seconds": round(seconds, 2), "per_s": round(size / seconds)}
    row["cpu_seconds"] = round(cpu, 2)
    print(json.dumps(row | {"peak_mb": round(most_mb()), "labelled": counts["captions/labelled"]}))


def main() -> None:
    """Print two tables and, last, one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.labels", description=__doc__)
    parser.add_argument(
        "--captions",
        type=Path,
        default=DEVELOPMENT if DEVELOPMENT.is_file() else None,
        help="COCO captions JSON (default: those of the development data, or made-up ones)",
    )
    parser.add_argument("--sizes", type=int, nargs="*", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    vocabulary = load_vocabulary(builtin_vocabulary_path("coco2014"))
    texts = captions_of(arguments.captions, vocabulary)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.only:
            one_size(texts, vocabulary, arguments.only, Path(folder))
            return
        ratio = against_nltk(texts, vocabulary, Path(folder))
    rows = growth(arguments.captions, arguments.sizes)
    print(json.dumps(ratio | {"growth": rows}))


if __name__ == "__main__":
    main()
