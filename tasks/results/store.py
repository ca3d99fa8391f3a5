"""Where MLflow keeps runs: the home's SQLite file, made whole, or the store that is named.

The file is made beside and renamed, under a lock: two first runs at once, or a kill within the
second that its tables take, would leave it half made for ever. It holds absolute paths: where the
home was moved, copied or mounted elsewhere they are set right before anything is written.

SQLite has no checksums. So after each run a copy is kept, with the SHA-256 that the file had: if
its bytes have changed since, and its own count of writes has not, the copy is taken.
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import shutil
import sqlite3
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

from models.lazily import lazily
from tasks.contents import recall, remember
from tasks.errors import InputError
from tasks.files import address, home, is_writable, locked, trouble, write_whole
from tasks.integrity import DamagedError, check_bytes, looks, sealed, unsealed

with lazily():
    import mlflow
    import sqlalchemy
    from mlflow import MlflowClient

LOG = logging.getLogger("tai")
EXPERIMENT: Final = "tai-flows"
KIND: Final = ("mlflow.experimentKind", "custom_model_development")
"""What older pages of MLflow go by; newer ones go by their address (`track.AS_TRAINING`)."""
ARTIFACTS: Final = "mlartifacts"
PATHS: Final = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
PATIENCE_S: Final = 5.0
WRITES: Final = slice(24, 28)
"""Bytes of a SQLite file in which it counts the transactions that have written."""
DAMAGED: Final = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
_looked: set[tuple[int, ...]] = set()
"""What stores looked like that this process has found whole."""


def tracking_uri() -> str:
    """`$MLFLOW_TRACKING_URI`, or a SQLite file in the workspace."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_own_file()}"


def open_store() -> MlflowClient:
    """A client of the store, which answers.

    Raises:
        InputError: the store is down, half made, or of another version of MLflow.

    """
    uri = tracking_uri()
    try:
        if uri.startswith(("http://", "https://")):
            _answers(uri)
        elif uri.startswith("sqlite:////"):
            _made(Path(uri.removeprefix("sqlite:///").partition("?")[0]))
        return MlflowClient(uri)
    except (
        sqlite3.DatabaseError,
        sqlalchemy.exc.SQLAlchemyError,
        mlflow.exceptions.MlflowException,
    ) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{uri}: no MLflow store: {first}") from error
    except OSError as error:
        raise InputError(f"{uri}: {trouble(error) or error.strerror or error}") from error


def experiment_in(client: MlflowClient) -> str:
    """Id of the experiment that all runs are in, which is made if it is not there.

    Raises:
        InputError: it was deleted, or the store refuses.

    """
    try:
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            location = (_own_file().parent / ARTIFACTS).as_uri() if _is_own() else None
            return str(client.create_experiment(EXPERIMENT, location, dict([KIND])))
        if found.lifecycle_stage == "deleted":
            raise InputError(
                f"{tracking_uri()}: the experiment '{EXPERIMENT}' was deleted; bring it back by: "
                f"mlflow experiments restore --experiment-id {found.experiment_id}"
            )
        if KIND[0] not in found.tags:
            client.set_experiment_tag(found.experiment_id, *KIND)
    except mlflow.exceptions.MlflowException as error:
        other = client.get_experiment_by_name(EXPERIMENT) if "exist" in str(error) else None
        if other is None:
            first = str(error).splitlines()[0]
            raise InputError(f"{tracking_uri()}: MLflow's store refuses: {first}") from error
        found = other
    return str(found.experiment_id)


def check_store() -> None:
    """Stop before work starts if runs cannot be logged."""
    experiment_in(open_store())


def keep_store() -> None:
    """Keep a copy of the home's file as it is now, and its SHA-256, in case it gets damaged."""
    file = _own_file()
    if not (_is_own() and file.is_file() and is_writable()):
        return
    copy, seal = _kept(file)
    with locked(file.with_name(f".{file.name}.lock")):
        content = _content(file)
        write_whole(copy, content)
        write_whole(seal, sealed(_told(content)))


def _kept(file: Path) -> tuple[Path, Path]:
    """The kept copy of a store, and the note of its bytes."""
    return file.with_name(f".{file.name}.kept"), file.with_name(f".{file.name}.seal")


def _content(file: Path) -> bytes:
    """A store's bytes, read by SQLite: whoever opens and closes the file takes its locks away."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("begin")
        connection.execute("select count(*) from sqlite_master").fetchone()
        content = connection.serialize()
        if file.stat().st_size != len(content):
            raise sqlite3.DatabaseError(f"cut off; {len(content):,} bytes were written")
        return content


def _told(content: bytes) -> dict[str, str]:
    return {"writes": content[WRITES].hex(), "sha256": hashlib.sha256(content).hexdigest()}


def _damage(file: Path, known: Mapping[str, str]) -> str:
    """What is wrong with a store of which that was noted; '' if nothing is."""
    if not file.stat().st_size:
        return "empty"
    try:
        told = _told(_content(file))
        if told["writes"] == known["writes"]:
            return "" if told == known else "its bytes have changed since they were written"
        # others have written since
        with closing(sqlite3.connect(file)) as connection:
            (found,) = connection.execute("pragma quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        # ours, and `serialize`'s, have no name
        if getattr(error, "sqlite_errorname", DAMAGED[0]).startswith(DAMAGED):
            return str(error)
        raise
    return "" if found == "ok" else str(found).replace("\n", " ")


def _restore(file: Path) -> None:
    """Take the kept copy where the store is damaged; one that somebody has removed begins anew."""
    copy, seal = _kept(file)
    if not seal.is_file():
        return  # no run has ended yet
    try:
        if looks(file) in _looked:
            return
        known = unsealed(seal)
        known = {name: known[name] for name in ("writes", "sha256")}
        check_bytes(copy, known["sha256"])
        damage = _damage(file, known)
        if not damage:
            _looked.add(looks(file))
            return
    except FileNotFoundError:
        return  # the store itself
    except DamagedError as error:
        LOG.warning("%s; at its end this run keeps a new copy of MLflow's store", error)
        return
    beside, aside = _beside(file), file.with_name(f".{file.name}.{time.time_ns()}.damaged")
    shutil.copyfile(copy, beside)
    file.rename(aside)
    file.with_name(f"{file.name}-journal").unlink(missing_ok=True)
    beside.rename(file)
    LOG.warning(
        "%s: %s; set aside as %s, and taken as it was after the last run", file, damage, aside.name
    )


def _is_own() -> bool:
    return not os.environ.get("MLFLOW_TRACKING_URI")


def _own_file() -> Path:
    """The home's file; where that may not be written, a copy that ends with this process."""
    place = address()
    return (_copied(place) if place.exists() and not is_writable() else place) / "mlflow.db"


@cache
def _copied(place: Path) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="tai-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if (place / "mlflow.db").is_file():
        shutil.copyfile(place / "mlflow.db", folder / "mlflow.db")
        LOG.warning("%s may not be written: this run's record in MLflow is not kept", home())
    return folder


def _answers(uri: str) -> None:
    """One question with little patience; MLflow's own client tries for minutes."""
    try:
        with urllib.request.urlopen(uri, timeout=PATIENCE_S):  # noqa: S310
            return
    except urllib.error.HTTPError:
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise InputError(
            f"MLFLOW_TRACKING_URI {uri}: no server answers there ({reason}); start it, or unset "
            "the variable to log into the home"
        ) from error


def _made(file: Path) -> None:
    """Make a SQLite store, or set it right."""
    file.parent.resolve().mkdir(parents=True, exist_ok=True)
    with locked(file.with_name(f".{file.name}.lock")):
        if _is_own():
            _restore(file)
        if file.exists() and not _is_whole(file):
            file.rename(file.with_name(f".{file.name}.damaged"))
            LOG.warning("%s: half made, and without a run; made anew", file)
        if not file.exists():
            _make(file)
        elif _revision(file) != _newest():
            _upgrade(file)
        if _is_own():
            _set_right(file)


def _is_whole(file: Path) -> bool:
    """False for what a kill has left of a store that was being made; such a one has no run."""
    if not file.stat().st_size:
        return False
    with closing(sqlite3.connect(file)) as connection:
        tables = {name for (name,) in connection.execute("select name from sqlite_master")}
        if "runs" in tables and connection.execute("select 1 from runs limit 1").fetchone():
            return True
        # a migration that was under way has tables and no revision, or not the newest's tables
        return {"experiments", "runs", "alembic_version"} <= tables and bool(_revision(file))


def _revision(file: Path) -> str:
    with closing(sqlite3.connect(file)) as connection:
        found = connection.execute("select version_num from alembic_version").fetchone()
    return str(found[0]) if found else ""


@cache
def _newest() -> str:
    """MLflow's own schema; remembered, for finding it out reads all that there have been."""
    identity = f"schema of mlflow {version('mlflow')}"
    known = recall(identity)
    if not known:
        from mlflow.store.db.utils import _get_latest_schema_revision

        known = str(_get_latest_schema_revision())
        remember(identity, known)
    return known


def _make(file: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    beside = _beside(file)
    made = SqlAlchemyStore(f"sqlite:///{beside}", (file.parent / ARTIFACTS).as_uri())
    made.engine.dispose()
    beside.rename(file)


def _upgrade(file: Path) -> None:
    """Bring an older schema up to date in a copy; the old file stays beside."""
    from mlflow.store.db.utils import _upgrade_db

    found, beside = _revision(file), _beside(file)
    with closing(sqlite3.connect(file)) as old, closing(sqlite3.connect(beside)) as new:
        old.backup(new)
    engine = sqlalchemy.create_engine(f"sqlite:///{beside}")
    try:
        _upgrade_db(engine)
    except Exception as error:  # alembic's own kinds are many
        raise InputError(
            f"{file}: written by another version of MLflow (schema {found}, here {_newest()}) and "
            f"cannot be upgraded: {str(error).splitlines()[0]}; install that version, or move the "
            "file away"
        ) from error
    finally:
        engine.dispose()
    shutil.copyfile(file, file.with_name(f"{file.name}.{found}"))
    beside.rename(file)
    LOG.warning("%s: brought from MLflow's schema %s to %s", file, found, _newest())


def _beside(file: Path) -> Path:
    """A name beside, free of what a killed process has left there."""
    beside = file.with_name(f".{file.name}.building")
    for left in file.parent.glob(f"{beside.name}*"):
        left.unlink()
    return beside


def _set_right(file: Path) -> None:
    """Where the home lies elsewhere than when it was written, change all paths that are kept."""
    here, wanted = (address() / ARTIFACTS).as_uri(), (file.parent / ARTIFACTS).as_uri()
    engine = sqlalchemy.create_engine(f"sqlite:///{file}")
    names = sqlalchemy.table("experiments", *map(sqlalchemy.column, ("name", "artifact_location")))
    try:
        with engine.begin() as connection:
            query = sqlalchemy.select(names.c.artifact_location).where(names.c.name == EXPERIMENT)
            was = connection.execute(query).scalar()
            if was in (None, wanted):
                return
            for name, field in PATHS:
                place = sqlalchemy.column(field, sqlalchemy.String)
                # what is new is written where it may be; what is there is read where it lies
                now = wanted if name == "experiments" else here
                connection.execute(
                    sqlalchemy.table(name, place)
                    .update()
                    .where(sqlalchemy.func.substr(place, 1, len(was)) == was)
                    .values({field: now + sqlalchemy.func.substr(place, len(was) + 1)})
                )
    finally:
        engine.dispose()
