"""What lies in the home: whether it is as it was made, and what nothing needs any more.

What stays: stages that one of the last runs in MLflow, or a run with a registered model, was made
of, with the partitions that their images lie in; made worlds that such a run read; whatever was
opened within the last day; and what a process is building. All else can be made anew.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from models.lazily import lazily
from tasks.files import is_locked
from tasks.integrity import (
    MANIFEST,
    SEAL,
    DamagedError,
    check_bytes,
    check_folder,
    read_manifest,
    set_aside,
    unsealed,
)
from tasks.labels.refresh import FOLDER
from tasks.results.store import experiment_in, open_store
from tasks.results.track import STAGES
from tasks.workspace import home

with lazily():
    import mlflow
    from mlflow import MlflowClient

RUNS: Final = 10
DAYS: Final = 1.0
LEFT: Final = (".damaged", ".building")
KEY: Final = 20
"""Characters of a stage's name."""


@dataclass(frozen=True)
class Leaving:
    """A folder, or a file that was set aside, that nothing needs."""

    folder: Path
    why: str
    size: int
    """Bytes on the disk; a file that lies elsewhere too counts for nothing."""


def stages() -> Iterator[Path]:
    """Folders of all finished stages."""
    for kind in sorted(path for path in home().glob("*") if path.is_dir()):
        for folder in sorted(kind.glob("*")):
            is_key = len(folder.name) == KEY and not folder.name.startswith(".")
            if is_key and folder.is_dir():
                yield folder


def damaged(folder: Path) -> list[str]:
    """What is wrong with a stage, a sentence a file; empty if all bytes are as they were made."""
    try:
        manifest = read_manifest(folder)
    except DamagedError as error:
        return [str(error)]
    found = []
    for name, sha256 in manifest["outputs"].items():
        try:
            check_bytes(folder / name, sha256)
        except DamagedError as error:
            found.append(str(error))
    return found


def damaged_besides() -> list[str]:
    """What is wrong with what is handed on outside of stages: taggers, and records of refreshes."""
    found = []
    for path in [*home().glob(f"mlartifacts/**/{SEAL}"), *home().glob(f"{FOLDER}/[!.]*.json")]:
        try:
            if path.name == SEAL:
                check_folder(path.parent)
            else:
                unsealed(path)
        except DamagedError as error:
            found.append(str(error))
    return found


def leaving(runs: int = RUNS, days: float = DAYS) -> list[Leaving]:
    """Folders that nothing needs, by the rule above.

    Raises:
        InputError: MLflow's store does not answer, so that nobody can tell what is needed.

    """
    needed = _needed(open_store(), runs)
    needed |= {
        key
        for folder in stages()
        if folder.name in needed or _is_recent(folder / MANIFEST, days)
        for key in _parts(folder)
    }
    found = []
    for folder in stages():
        if not _is_stage(folder) or folder.name in needed or _is_recent(folder / MANIFEST, days):
            continue
        found.append(Leaving(folder, f"in none of the last {runs} runs", _size(folder)))
    for folder in sorted([*home().glob(".*"), *home().glob("*/.*")]):
        kind = next((end for end in LEFT if folder.name.endswith(end)), "")
        if kind and not _is_recent(folder, days) and not _is_held(folder):
            why = "was damaged" if kind == ".damaged" else "left by a run that was killed"
            found.append(Leaving(folder, why, _size(folder)))
    return found


def remove(folder: Path) -> None:
    """Remove a folder so that a kill on the way leaves nothing that looks whole."""
    aside = folder if folder.name.startswith(".") else set_aside(folder)
    if aside and aside.is_dir():
        shutil.rmtree(aside)
    elif aside:
        aside.unlink(missing_ok=True)


def _needed(client: MlflowClient, runs: int) -> set[str]:
    """Keys that the last runs, and those with a registered model, name."""
    found = client.search_runs([experiment_in(client)])
    whole = [run for run in found if "model" in run.data.tags][:runs]
    ids = {run.info.run_id for run in whole if run.info.run_id}
    ids |= {str(each.run_id) for each in client.search_model_versions() if each.run_id}
    keys: set[str] = set()
    for run_id in ids:
        for name in (STAGES, "config.json"):
            try:
                path = Path(client.download_artifacts(run_id, name))
                keys |= _names(json.loads(path.read_text(encoding="utf-8")))
            except (mlflow.exceptions.MlflowException, OSError, ValueError):
                continue
    return keys


def _parts(folder: Path) -> list[str]:
    """Keys of the partitions that a stage is read from."""
    try:
        return list(read_manifest(folder)["figures"].get("parts", ()))
    except DamagedError:
        return []


def _names(value: object) -> set[str]:
    """All texts in a JSON value, and all parts of those that are paths."""
    if isinstance(value, dict):
        return set().union(*(_names(each) for each in value.values()))
    if isinstance(value, list):
        return set().union(*(_names(each) for each in value))
    return set(value.split("/")) if isinstance(value, str) else set()


def _is_stage(folder: Path) -> bool:
    """False for what other programs keep, whose folders may have such names."""
    return (folder / MANIFEST).is_file() or folder.with_name(f".{folder.name}.lock").exists()


def _is_recent(path: Path, days: float) -> bool:
    try:
        return time.time() - path.stat().st_mtime < 24 * 3600 * days
    except OSError:
        return False


def _is_held(building: Path) -> bool:
    """Whether a process is at work there: it holds the stage's lock."""
    lock = building.with_name(f".{building.name[1:].partition('.')[0]}.lock")
    return is_locked(lock)


def _size(folder: Path) -> int:
    sizes = 0 if folder.is_dir() else folder.stat().st_size
    for parent, _, names in os.walk(folder):
        for name in names:
            status = (Path(parent) / name).lstat()
            sizes += status.st_size if status.st_nlink == 1 else 0
    return sizes
