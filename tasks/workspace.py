"""Content-addressed stages: each output is an immutable folder, written beside and renamed.

    <home>/<stage>/<key>/manifest.json   inputs' digests, parameters, code, counts, outputs' digests
    <home>/<stage>/<key>/…               the stage's files

`key` is the SHA-256 of (stage, code, inputs, parameters), so work whose manifest is there is never
done again. A stage's *digest* covers its output bytes alone: a stage downstream takes that as its
input, so a change of code that leaves the output as it was re-runs nothing further on.
"""

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle

from tasks.code import code_digest
from tasks.contents import source_sha256 as source_sha256
from tasks.errors import InputError
from tasks.files import canonical as canonical
from tasks.files import check_home as check_home
from tasks.files import digest_of as digest_of
from tasks.files import file_sha256 as file_sha256
from tasks.files import finish_shard as finish_shard
from tasks.files import forget_shards, sync, trouble
from tasks.files import has_shard as has_shard
from tasks.files import home as home
from tasks.files import locked as locked
from tasks.files import write_whole as write_whole
from tasks.integrity import MANIFEST, DamagedError, check_bytes, read_manifest, sealed, set_aside

LOG = logging.getLogger("tai")
_makers: dict[Path, Callable[[], "Stage"]] = {}
"""How to make a stage again that this process has opened by its recipe."""


@dataclass(frozen=True)
class Stage:
    """One whole, immutable output folder and what its manifest says.

    A damaged file is found when it is first asked for, and the stage is made anew then and there.
    """

    place: Path
    """Where it lies; readers ask for `folder` or `file`, which look at the bytes first."""
    manifest: dict[str, Any]
    fresh: bool
    """True if this call did the work, False if it was found done."""

    @property
    def key(self) -> str:
        """Name of its folder, by which `find_stage` finds it."""
        return self.place.name

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
        """Path of one of the stage's files, to be read."""
        sha256 = self.manifest["outputs"].get(name)
        if sha256:
            try:
                check_bytes(self.place / name, sha256)
            except DamagedError as error:
                self._make_anew(error)
        return self.place / name

    @property
    def folder(self) -> Path:
        """The stage's folder, all of whose files may be read."""
        for name in self.manifest["outputs"]:
            self.file(name)
        return self.place

    def _make_anew(self, damage: DamagedError) -> None:
        _settle(self.place, damage)
        maker = _makers.get(self.place)
        if maker is None:
            raise DamagedError(f"{damage}; run this again, and it is made anew") from damage
        made = maker()
        if made.digest != self.digest:
            raise InputError(f"{damage}; it was made anew and came out otherwise: run this again")

    def __reduce__(self) -> tuple[Any, ...]:
        maker = _makers.get(self.place)
        try:
            how = cloudpickle.dumps(maker) if maker else None
        except Exception:  # what cannot travel stays; there, damage is an error
            how = None
        return _arrived, (self.place, self.manifest, self.fresh, how)


def _arrived(place: Path, manifest: dict[str, Any], fresh: bool, how: bytes | None) -> Stage:
    """A stage from another process, with how to make it."""
    if how and place not in _makers:
        _makers[place] = cloudpickle.loads(how)
    return Stage(place, manifest, fresh)


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
    was and goes on from there. A finished one that is damaged is set aside. Two runs at once: the
    second waits.

    Raises:
        InputError: nothing can be written there, because the disk is full, for example.

    """
    final = home() / recipe.stage / recipe.key

    def make() -> Stage:
        return run_stage(recipe, work, resumable=resumable)

    _makers[final] = make
    if (final / MANIFEST).is_file():
        try:
            return _open(final)
        except DamagedError:
            LOG.debug("%s: looked at again under its lock", final)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with _held(final):
            return _made(recipe, final, work, resumable)
    except InputError:
        raise
    except Exception as error:
        reason = trouble(error)
        if not reason:
            raise
        raise InputError(
            f"{final.parent}: stage '{recipe.stage}' cannot be stored: {reason}; free or mount it, "
            "or name another folder by TAI_HOME"
        ) from error


def _made(recipe: Recipe, final: Path, work: Callable[[Path], Result], resumable: bool) -> Stage:
    """The stage as another run has made it meanwhile, or as it is made here."""
    damage = _damage(final)
    if damage:
        _replace(final, damage)
    elif final.exists():
        return _open(final)
    building = final.with_name(f".{final.name}.building")
    if building.exists() and not resumable:
        shutil.rmtree(building)
    building.mkdir(exist_ok=True)
    started = time.monotonic()
    result = _work(work, building)
    forget_shards(building)
    paths = sorted(path for path in building.rglob("*") if path.is_file())
    outputs = {path.relative_to(building).as_posix(): file_sha256(path) for path in paths}
    for path in paths:
        sync(path)
    manifest = recipe.values | {
        "key": recipe.key,
        "digest": digest_of(outputs),
        "outputs": outputs,
        "sizes": {name: (building / name).stat().st_size for name in outputs},
        "counts": dict(result.counts),
        "figures": dict(result.figures) | {"seconds": round(time.monotonic() - started, 3)},
    }
    write_whole(building / MANIFEST, sealed(manifest))
    sync(building)
    building.rename(final)
    sync(final.parent)
    return Stage(final, manifest, fresh=True)


def _work(work: Callable[[Path], Result], building: Path) -> Result:
    """The work itself; apart, so that a test can tell what runs inside it."""
    return work(building)


def is_finished(recipe: Recipe) -> bool:
    """True if `run_stage` would find its work done."""
    final = home() / recipe.stage / recipe.key
    return final.exists() and _damage(final) is None


def find_stage(name: str, key: str) -> Stage:
    """The finished stage of that name and key; InputError if it is not in this workspace."""
    final = home() / name / key
    if not final.exists():
        raise InputError(
            f"{final}: no finished '{name}' stage here; a flow that runs as its own deployment "
            "must share TAI_HOME with the one that launched it"
        )
    try:
        return _open(final)
    except DamagedError as damage:
        if final in _makers:
            return _makers[final]()
        raise DamagedError(f"{damage}; run again what made it, and it is made anew") from damage


def finished(name: str, *files: str) -> Iterator[Stage]:
    """Finished stages of that name whose manifest and `files` are as they were made.

    A damaged one is set aside: its work is missing, and whoever needs it does it anew.
    """
    for folder in sorted((home() / name).glob("[!.]*")):
        try:
            manifest = read_manifest(folder)
            for file in files:
                check_bytes(folder / file, manifest["outputs"][file])
        except DamagedError as damage:
            try:
                _settle(folder, damage)
            except DamagedError as told:
                LOG.warning("%s", told)
            continue
        yield Stage(folder, manifest, fresh=False)


def _open(folder: Path) -> Stage:
    """A finished stage, whose sizes are looked at; its bytes when they are asked for."""
    stage = Stage(folder, read_manifest(folder), fresh=False)
    try:
        # so that `flows.workspace clean` knows what is in use
        os.utime(folder / MANIFEST)
    except OSError:
        LOG.debug("%s: read-only", folder)
    return stage


def _damage(folder: Path, *, whole: bool = False) -> DamagedError | None:
    """What is wrong with a stage that is there: by sizes, or by all bytes if `whole`."""
    if not os.path.lexists(folder):
        return None
    try:
        manifest = read_manifest(folder)
        for name, sha256 in manifest["outputs"].items() if whole else ():
            check_bytes(folder / name, sha256)
    except DamagedError as damage:
        return damage
    return None


def _settle(folder: Path, damage: DamagedError) -> None:
    """Set a stage aside that is still damaged, under its lock; DamagedError where that can't be."""
    try:
        with _held(folder):
            is_still = _damage(folder, whole=True)
            if is_still:
                _replace(folder, is_still)
    except OSError as error:
        reason = trouble(error) or error.strerror
        raise DamagedError(f"{damage}; it cannot be made anew here: {reason}") from error


def _replace(folder: Path, damage: DamagedError) -> None:
    """Set a damaged stage aside, and say so."""
    aside = set_aside(folder)
    if aside:
        LOG.warning("%s; set aside as %s and made anew", damage, aside.name)


def _held(folder: Path) -> AbstractContextManager[None]:
    """The lock under which a stage is made or set aside."""
    return locked(folder.with_name(f".{folder.name}.lock"))


def digests_of(stages: Iterable[Stage]) -> str:
    """One digest of several stages, in their order."""
    return hashlib.sha256("".join(stage.digest for stage in stages).encode()).hexdigest()
