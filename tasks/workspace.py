"""Content-addressed stages: each output is an immutable folder, written beside and renamed.

    <home>/<stage>/<key>/manifest.json   inputs' digests, parameters, code, counts, outputs' digests
    <home>/<stage>/<key>/…               the stage's files

`key` is the SHA-256 of (stage, code, inputs, parameters), so work whose manifest is there is never
done again. A stage's *digest* covers its output bytes alone: a stage downstream takes that as its
input, so a change of code that leaves the output as it was re-runs nothing further on.
"""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.code import code_digest
from tasks.errors import InputError

MANIFEST = "manifest.json"


def home() -> Path:
    """Folder that holds every output: `$TAI_HOME`, or `.tai` in the working folder."""
    return Path(os.environ.get("TAI_HOME", ".tai")).absolute()


@dataclass(frozen=True)
class Stage:
    """One whole, immutable output folder and what its manifest says."""

    folder: Path
    manifest: dict[str, Any]
    fresh: bool
    """True if this call did the work, False if it was found done."""

    @property
    def name(self) -> str:
        """Stage name, for example `label`."""
        return str(self.manifest["stage"])

    @property
    def digest(self) -> str:
        """SHA-256 over the output files' names and bytes."""
        return str(self.manifest["digest"])

    @property
    def counts(self) -> dict[str, int]:
        """What was read, kept and rejected."""
        return dict(self.manifest["counts"])

    @property
    def figures(self) -> dict[str, Any]:
        """What was measured (not part of the digest)."""
        return dict(self.manifest["figures"])

    def file(self, name: str) -> Path:
        """Path of one of the stage's files."""
        return self.folder / name


@dataclass(frozen=True)
class Result:
    """What a stage's work gives back for its manifest."""

    counts: Mapping[str, int]
    figures: Mapping[str, Any]


@dataclass(frozen=True)
class Recipe:
    """What a stage's output depends on: equal recipes, equal output."""

    stage: str
    code: str
    """SHA-256 over every project file that the work can reach."""
    inputs: Mapping[str, str]
    """Digests of what the work reads."""
    parameters: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Name of the output's folder."""
        return hashlib.sha256(canonical(self.values)).hexdigest()[:20]

    @property
    def values(self) -> dict[str, Any]:
        """The recipe as the manifest holds it."""
        return {
            "stage": self.stage,
            "code": self.code,
            "inputs": dict(sorted(self.inputs.items())),
            "parameters": dict(sorted(self.parameters.items())),
        }


def recipe_of(
    stage: str,
    *modules: str,
    inputs: Mapping[str, str],
    parameters: Mapping[str, Any],
) -> Recipe:
    """The recipe of work in `modules`: the stage's own, and what it is handed at run time."""
    return Recipe(stage, code_digest(modules), inputs, parameters)


def run_stage(recipe: Recipe, work: Callable[[Path], Result], *, resumable: bool = False) -> Stage:
    """Return the recipe's output, doing `work(folder)` only if it is not there yet.

    A folder left by a killed run is emptied first, unless `resumable`: then `work` finds it as it
    was and goes on from there. Two runs at once: the second waits.
    """
    key = recipe.key
    final = home() / recipe.stage / key
    if (final / MANIFEST).is_file():
        return _open(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    with locked(final.with_name(f".{key}.lock")):
        if (final / MANIFEST).is_file():
            return _open(final)
        building = final.with_name(f".{key}.building")
        if building.exists() and not resumable:
            shutil.rmtree(building)
        building.mkdir(exist_ok=True)
        started = time.monotonic()
        result = _work(work, building)
        outputs = {
            path.relative_to(building).as_posix(): file_sha256(path)
            for path in sorted(building.rglob("*"))
            if path.is_file()
        }
        manifest = recipe.values | {
            "key": key,
            "digest": hashlib.sha256(canonical(outputs)).hexdigest(),
            "outputs": outputs,
            "counts": dict(result.counts),
            "figures": dict(result.figures) | {"seconds": round(time.monotonic() - started, 3)},
        }
        write_whole(building / MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
        building.rename(final)
        return Stage(final, manifest, fresh=True)


def _work(work: Callable[[Path], Result], building: Path) -> Result:
    """The work itself; apart, so that a test can tell what runs inside it."""
    return work(building)


def is_finished(recipe: Recipe) -> bool:
    """True if `run_stage` would find its work done."""
    return (home() / recipe.stage / recipe.key / MANIFEST).is_file()


def find_stage(name: str, key: str) -> Stage:
    """The finished stage of that name and key; InputError if it is not in this workspace."""
    final = home() / name / key
    if not (final / MANIFEST).is_file():
        raise InputError(
            f"{final}: no finished '{name}' stage here; a flow that runs as its own deployment "
            "must share TAI_HOME with the one that launched it"
        )
    return _open(final)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    with beside.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_sha256(path: Path) -> str:
    """`file_sha256` of a source file, remembered until its size or modification time changes.

    Raises:
        InputError: it cannot be read.

    """
    try:
        return _source_sha256(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def _source_sha256(path: Path) -> str:
    status = path.stat()
    identity = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}|{status.st_ino}"
    remembered = home() / "digests" / hashlib.sha256(identity.encode()).hexdigest()
    if remembered.is_file():
        return remembered.read_text()
    digest = file_sha256(path)
    remembered.parent.mkdir(parents=True, exist_ok=True)
    write_whole(remembered, digest)
    return digest


def canonical(value: Any) -> bytes:
    """JSON bytes that are the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _open(folder: Path) -> Stage:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    for name in manifest["outputs"]:
        if not (folder / name).is_file():
            raise InputError(
                f"{folder / name}: gone from a finished stage; delete {folder} and rerun"
            )
    return Stage(folder, manifest, fresh=False)


def digest_of(value: Any) -> str:
    """SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical(value)).hexdigest()


def digests_of(stages: Iterable[Stage]) -> str:
    """One digest of several stages, in their order."""
    return hashlib.sha256("".join(stage.digest for stage in stages).encode()).hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an advisory lock that the system drops if this process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
