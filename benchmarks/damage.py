"""Single-byte flips and truncations over all files of a finished home, each followed by a rerun.

A file is drawn by kind (a stage, the registered model, MLflow's files, notes, weights), then
by lot. After each damage the run is made again, and pictures are tagged by the registered model.
Whatever was damaged, stages, metrics and tags must be those of before. A file that the rerun opened
must be named in what it says, or be as it was again; one that was not opened is told as such.

    python -m benchmarks.damage [FLIPS CUTS]
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from prefect.testing.utilities import prefect_test_harness

from benchmarks import forked

FLIPS, CUTS = 100, 50
OPENED: Final = {"open": 0, "sqlite3.connect": 0}
"""Events of Python's audit, and which of their arguments is the file."""


def kind_of(file: Path, home: Path) -> str:
    """What a file of the home is: a stage's name, or a part of MLflow's."""
    parts = file.relative_to(home).parts
    if parts[:2] == ("mlartifacts", "models"):
        return "registered tagger" if "tagger" in parts else "registered model, the rest"
    if len(parts) == 1:
        return "mlflow.db" if parts[0] == "mlflow.db" else "its kept copy and seal"
    return "artifacts of runs" if parts[0] == "mlartifacts" else parts[0]


def files_of(home: Path) -> dict[str, list[Path]]:
    """Files that are not empty, by kind."""
    found: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(home.rglob("*")):
        if file.is_file() and not file.is_symlink() and file.stat().st_size:
            found[kind_of(file, home)].append(file)
    return dict(found)


def flip(file: Path, chance: random.Random) -> str:
    """Another bit in one of its bytes."""
    content = bytearray(file.read_bytes())
    at = chance.randrange(len(content))
    content[at] ^= 1 << chance.randrange(8)
    with file.open("r+b") as opened:
        opened.write(content)
    return f"byte {at:,} flipped"


def cut(file: Path, chance: random.Random) -> str:
    """Its end lost."""
    size = chance.randrange(file.stat().st_size)
    os.truncate(file, size)
    return f"cut to {size:,} bytes"


def watched(opened: Path, work: Callable[[], object]) -> Callable[[], None]:
    """Work that writes down which files it opens (those that Python code opens)."""

    def watching() -> None:
        with opened.open("w", encoding="utf-8") as told:
            files: set[str] = set()

            def hook(event: str, arguments: tuple[Any, ...]) -> None:
                if event in OPENED and isinstance(arguments[0], str | os.PathLike):
                    files.add(os.path.realpath(arguments[0]))

            sys.addaudithook(hook)
            try:
                work()
            finally:
                told.write("\n".join(list(files)))

    return watching


def as_it_was(home: Path, snapshot: Path) -> None:
    """Lay a home as it was, with links between its files."""
    shutil.rmtree(home)
    subprocess.run(["cp", "-a", str(snapshot), str(home)], check=True)  # noqa: S603, S607


def named(said: str, file: Path) -> bool:
    """Whether a sentence of what was said names a file, or its folder."""
    return any(str(file) in line or str(file.parent) in line for line in said.splitlines())


def main() -> None:
    """Damage, run again, compare; print counts by kind and by what became of it."""
    flips, cuts = map(int, sys.argv[1:3]) if len(sys.argv) > 2 else (FLIPS, CUTS)
    chance = random.Random(14)  # noqa: S311
    table: dict[str, Counter[str]] = defaultdict(Counter)
    wrong: list[str] = []
    forked.preload()
    with tempfile.TemporaryDirectory() as folder, prefect_test_harness(120):
        home, snapshot = Path(folder) / "home", Path(folder) / "snapshot"
        opened = Path(folder) / "opened"
        home.mkdir()
        forked.done(home)
        whole, figures = forked.digests(home), forked.figures(home)
        home.rename(snapshot)
        home.mkdir()
        as_it_was(home, snapshot)
        kinds = files_of(home)
        print(", ".join(f"{kind} {len(files)}" for kind, files in kinds.items()), flush=True)
        for number in range(flips + cuts):
            as_it_was(home, snapshot)
            kind = list(kinds)[number % len(kinds)]
            file = chance.choice(kinds[kind])
            before = file.read_bytes()
            how = (flip if number < flips else cut)(file, chance)
            run = forked.fork(home, watched(opened, forked.tai_and_predict))
            code, said = run.wait(), run.log.read_text(encoding="utf-8", errors="replace")
            was_read = str(file.resolve()) in opened.read_text(encoding="utf-8").splitlines()
            is_as_before = file.is_file() and file.read_bytes() == before
            told = f"{file.relative_to(home)}, {how}"
            if code:
                wrong.append(f"{told}: ended with {code}: {said[-300:]}")
            elif forked.digests(home) != whole or forked.figures(home) != figures:
                wrong.append(f"{told}: other figures")
            what = "named" if named(said, file) else "remade, silently" if is_as_before else ""
            table[kind][what or ("read, not noticed" if was_read else "not read")] += 1
            if was_read and not what:
                wrong.append(f"{told}: read, not noticed")
            print(f"{number + 1} {told}: {what or was_read}", flush=True)
    for kind, counts in table.items():
        print(f"{kind:28s}  " + ", ".join(f"{what} {n}" for what, n in counts.most_common()))
    print(*wrong, sep="\n")
    totals = _total(table.values())
    print(json.dumps({"benchmark": "damage", "flips": flips, "cuts": cuts} | dict(totals)))
    sys.exit(bool(wrong))


def _total(counts: Iterable[Counter[str]]) -> Counter[str]:
    found: Counter[str] = Counter()
    for each in counts:
        found.update(each)
    return found


if __name__ == "__main__":
    main()
