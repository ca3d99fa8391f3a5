"""Figures of benchmarks as JSON lines in one file, and README's table made of them.

    python -m benchmarks.record step encode      run some, one after the other; a line is added each
    python -m benchmarks.record --table          write README's table anew, of each one's last line

A line says what was run, when, at which commit, and on which machine.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from tasks.backbone.devices import native_precision

ROOT: Final = Path(__file__).parents[1]
FIGURES: Final = ROOT / "benchmarks" / "figures.jsonl"
README: Final = ROOT / "README.md"
BEGIN, END = "<!-- made by: python -m benchmarks.record --table -->\n", "<!-- end of it -->\n"


@dataclass(frozen=True)
class Row:
    """A row of README's table; figures by dotted name, with a format for each."""

    told: str
    benchmark: str
    plain: str
    here: str
    ratio: str
    form: str = "{:.3g} s"


ROWS: Final = (
    Row("training step, 20 classes", "step", "C20.plain_s", "C20.fast_s", "C20.ratio"),
    Row("training step, 80 classes", "step", "C80.plain_s", "C80.fast_s", "C80.ratio"),
    Row("training step, 1,000 classes", "step", "C1000.plain_s", "C1000.fast_s", "C1000.ratio"),
    Row(
        "COCO captions encoded, a second", "encode", "plain_per_s", "fast_per_s", "ratio", "{:.3g}"
    ),
    Row(
        "64 photographs scored, both branches (bare `encode_image`)",
        "score",
        "encode_image_s",
        "both_branches_s",
        "inverse",
    ),
    Row("the same, from cached features", "score", "both_branches_s", "cached_s", "cached_ratio"),
    Row(
        "captions labelled, a second (a loop with NLTK)",
        "labels",
        "nltk_per_s",
        "sql_per_s",
        "ratio",
        "{:,.0f}",
    ),
    Row(
        "CoOp's step, from cached features",
        "labelled",
        "coop.plain_s",
        "coop.cached_s",
        "coop.ratio",
    ),
    Row(
        "DualCoOp's step, from cached features",
        "labelled",
        "dualcoop.plain_s",
        "dualcoop.cached_s",
        "dualcoop.ratio",
    ),
)


def machine() -> dict[str, Any]:
    """What figures depend on besides the code."""
    told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    name = re.search(r"^model name\s*:\s*(.+)$", told, re.MULTILINE)
    return {
        "processor": name.group(1) if name else "unknown",
        "cores": len(os.sched_getaffinity(0)),
        "precision": native_precision("cpu"),
        "torch": torch.__version__,
    }


def run(benchmark: str, *arguments: str) -> dict[str, Any]:
    """Figures of a benchmark: the JSON of its last line; all lines are shown as they come."""
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", *arguments]
    last = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:  # noqa: S603
        assert process.stdout
        for line in process.stdout:
            sys.stdout.write(line)
            last = line.strip() or last
    if process.returncode:
        sys.exit(f"error: benchmarks.{benchmark} ended with {process.returncode}")
    return {
        "benchmark": benchmark,
        "date": time.strftime("%Y-%m-%d"),
        "commit": _commit(),
        "machine": machine(),
        "figures": json.loads(last),
    }


def table(lines: Iterable[Mapping[str, Any]]) -> str:
    """README's table of each benchmark's last line, and a sentence on each machine."""
    last = {line["benchmark"]: line for line in lines}
    rows = ["| | plain way | here | ratio |", "|---|---|---|---|"]
    used: dict[str, list[str]] = {}
    for row in ROWS:
        if row.benchmark not in last:
            continue
        line = last[row.benchmark]
        figures = line["figures"]
        plain, here = (row.form.format(_figure(figures, name)) for name in (row.plain, row.here))
        ratio = (
            1 / _figure(figures, "ratio") if row.ratio == "inverse" else _figure(figures, row.ratio)
        )
        rows.append(f"| {row.told} | {plain} | {here} | {ratio:.3g} |")
        used.setdefault(_told(line), []).append(row.benchmark)
    told = [
        f"{', '.join(f'`{name}`' for name in dict.fromkeys(names))}: {where}"
        for where, names in used.items()
    ]
    return "\n".join([*rows, "", "; ".join(told) + ".", ""])


def with_table(readme: str, lines: Iterable[Mapping[str, Any]]) -> str:
    """README with its table made anew."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + "\n" + table(lines) + "\n" + END + after


def recorded() -> list[dict[str, Any]]:
    """All lines, oldest first."""
    return [json.loads(line) for line in FIGURES.read_text(encoding="utf-8").splitlines()]


def _told(line: Mapping[str, Any]) -> str:
    where = line["machine"]
    return (
        f"{where['cores']} cores of an {where['processor']}, {where['precision']}, "
        f"torch {where['torch']}, {line['date']}, commit {line['commit']}"
    )


def _figure(figures: Mapping[str, Any], dotted: str) -> float:
    found: Any = figures
    for name in dotted.split("."):
        found = found[name]
    return float(found)


def _commit() -> str:
    told = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return told.stdout.strip()


def main() -> None:
    """Run and record, or write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record", description=__doc__)
    parser.add_argument("benchmarks", nargs="*", help="names of benchmarks to run")
    parser.add_argument("--table", action="store_true", help="write README's table")
    arguments = parser.parse_args()
    for name in arguments.benchmarks:
        line = json.dumps(run(name), separators=(",", ":"))
        with FIGURES.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
    if arguments.table:
        text = README.read_text(encoding="utf-8")
        README.write_text(with_table(text, recorded()), encoding="utf-8")


if __name__ == "__main__":
    main()
