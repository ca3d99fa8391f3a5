"""Content-addressed stages: each output is an immutable folder, written beside and renamed.

    <home>/<stage>/<key>/manifest.json   inputs' digests, parameters, code, counts, outputs' digests
    <home>/<stage>/<key>/…               the stage's files

`key` is the SHA-256 of (stage, code, inputs, parameters), so work whose manifest is there is never
done again. A stage's *digest* covers its output bytes alone: a stage downstream takes that as its
input, so a change of code that leaves the output as it was re-runs nothing further on.
"""

import fcntl
import functools
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.errors import InputError

ROOT = Path(__file__).parent.parent
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


def run_stage(
    name: str,
    *,
    inputs: Mapping[str, str],
    parameters: Mapping[str, Any],
    code: Sequence[str],
    work: Callable[[Path], Result],
    resumable: bool = False,
) -> Stage:
    """Return the stage's output, doing `work(folder)` only if it is not there yet.

    `inputs` are digests; `code` names the source files (relative to the repository) whose change
    calls for new work. A folder left by a killed run is emptied first, unless `resumable`: then
    `work` finds it as it was and goes on from there. Two runs at once: the second waits.
    """
    recipe = _recipe(name, inputs, parameters, code)
    key = _key(recipe)
    final = home() / name / key
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
        result = work(building)
        outputs = {
            path.relative_to(building).as_posix(): file_sha256(path)
            for path in sorted(building.rglob("*"))
            if path.is_file()
        }
        manifest = recipe | {
            "key": key,
            "digest": hashlib.sha256(canonical(outputs)).hexdigest(),
            "outputs": outputs,
            "counts": dict(result.counts),
            "figures": dict(result.figures) | {"seconds": round(time.monotonic() - started, 3)},
        }
        write_whole(building / MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
        building.rename(final)
        return Stage(final, manifest, fresh=True)


def is_finished(
    name: str, *, inputs: Mapping[str, str], parameters: Mapping[str, Any], code: Sequence[str]
) -> bool:
    """True if `run_stage` would find its work done."""
    key = _key(_recipe(name, inputs, parameters, code))
    return (home() / name / key / MANIFEST).is_file()


def _recipe(
    name: str, inputs: Mapping[str, str], parameters: Mapping[str, Any], code: Sequence[str]
) -> dict[str, Any]:
    return {
        "stage": name,
        "code": code_digest(code),
        "inputs": dict(sorted(inputs.items())),
        "parameters": dict(sorted(parameters.items())),
    }


def _key(recipe: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(recipe)).hexdigest()[:20]


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
    """`file_sha256` of a source file, remembered until its size or modification time changes."""
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


def code_digest(files: Sequence[str]) -> str:
    """SHA-256 over the bytes of source files named relative to the repository's root."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0".encode() + _source(name))
    return digest.hexdigest()


@functools.cache
def _source(name: str) -> bytes:
    """A source file, as it was when first asked for: nor does the code change that runs here."""
    return (ROOT / name).read_bytes()


def _open(folder: Path) -> Stage:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    for name in manifest["outputs"]:
        if not (folder / name).is_file():
            raise InputError(
                f"{folder / name}: gone from a finished stage; delete {folder} and rerun"
            )
    return Stage(folder, manifest, fresh=False)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an advisory lock that the system drops if this process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
