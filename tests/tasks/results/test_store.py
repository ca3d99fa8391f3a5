"""MLflow's store: made whole whoever else makes it, told where it cannot be, and moved."""

import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tasks.errors import InputError
from tasks.results import store, track
from tasks.serving import registry
from tasks.serving.named import find_model

ROOT = Path(__file__).parents[3]
NAMES = ["two words ~", "per%20cent%b what?a=b#c ü"]
SCRIPT = """
import sys
from tasks.results import track
with track.run("made") as run:
    run.metrics({"mAP": 1.0})
    run.config({"seed": 1})
    print(run.run_id, flush=True)
    if sys.argv[1:]:
        import time
        time.sleep(60)
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return use(tmp_path / "home", monkeypatch)


def use(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TAI_HOME", str(home))
    return home


@pytest.fixture(scope="module")
def new_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without runs: making one takes its second."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    store._make(file)
    return file


@pytest.fixture
def made(home: Path, new_store: Path) -> Path:
    """A home with such a store."""
    home.mkdir()
    shutil.copyfile(new_store, home / "mlflow.db")
    return home


def start(home: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments],
        cwd=ROOT,
        env={**os.environ, "TAI_HOME": str(home), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def whole_runs() -> list[str]:
    """Names of runs that can be read, after a new one was written."""
    with track.run("after") as run:
        run.metrics({"mAP": 2.0})
    client = store.open_store()
    return [each.info.run_name for each in client.search_runs([store.experiment_in(client)])]


def test_two_first_runs_at_once(home: Path) -> None:
    both = [start(home), start(home)]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    # both may have asked for the name before either had it
    assert [name.partition(" ")[0] for name in whole_runs()] == ["after", "made", "made"]


def test_a_kill_while_the_tables_are_made_does_no_harm(home: Path) -> None:
    chance = random.Random(14)
    for _ in range(2):
        process = start(home)
        deadline = time.monotonic() + 60
        while not list(home.glob(".mlflow.db.building")) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.6))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if (home / "mlflow.db").exists():
            (home / "mlflow.db").unlink()
    assert whole_runs() == ["after"]


def half_made(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("create table experiments (experiment_id integer)")
        connection.execute("create table runs (run_uuid text)")


@pytest.mark.parametrize("leave", [lambda file: file.write_bytes(b""), half_made])
def test_what_an_older_kill_has_left_is_set_aside(
    leave: Callable[[Path], None], home: Path
) -> None:
    home.mkdir()
    leave(home / "mlflow.db")
    assert whole_runs() == ["after"]
    assert (home / ".mlflow.db.damaged").exists()


def test_a_file_that_is_no_store_is_named(home: Path) -> None:
    home.mkdir()
    (home / "mlflow.db").write_text("a letter, not a database, and long enough to be one" * 50)
    with pytest.raises(InputError, match=r"mlflow\.db: no MLflow store: file is not a database"):
        store.check_store()


def flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at % len(content)] ^= 1
    file.write_bytes(content)


def another_process() -> None:
    """Close what this process holds open, as its end would."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Registry
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Tracking

    for engine in [*Tracking._engine_map.values(), *Registry._engine_map.values()]:
        engine.dispose()
    store._looked.clear()


def test_a_damaged_store_is_taken_as_it_was_after_the_last_run(
    made: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = made / "mlflow.db"
    assert whole_runs() == ["after"]
    chance, size = random.Random(14), file.stat().st_size
    cut = [0, 1, 99, size // 2, size - 1]
    flips = [0, 20, size - 1, *(chance.randrange(100, size) for _ in range(9))]
    for damage in (
        *(lambda at=at: os.truncate(file, at) for at in cut),
        *(lambda at=at: flip(file, at) for at in flips),
    ):
        another_process()
        content = file.read_bytes()
        damage()
        caplog.clear()
        store.check_store()
        (warning,) = caplog.messages
        assert warning.startswith(f"{file}: ")
        assert "set aside as .mlflow.db." in warning
        assert file.read_bytes() == content
    # what others write is no damage, nor is a journal that a kill has left
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("update runs set name = 'renamed'")
    caplog.clear()
    assert set(whole_runs()) == {"renamed", "after"}
    assert not caplog.messages
    # nor does a damaged copy go unsaid, or another take its place
    for kept in (made / ".mlflow.db.kept", made / ".mlflow.db.seal"):
        store.keep_store()
        another_process()
        flip(kept, 50)
        content = file.read_bytes()
        store.check_store()
        (warning,) = caplog.messages
        assert warning.startswith(f"{kept}: ")
        assert file.read_bytes() == content
        caplog.clear()


def test_an_older_schema_is_upgraded_and_a_newer_one_explained(made: Path) -> None:
    from alembic import command
    from mlflow.store.db.utils import _get_alembic_config

    file = made / "mlflow.db"
    config = _get_alembic_config(f"sqlite:///{file}")
    newest = store._revision(file)
    command.downgrade(config, "-1")
    assert store._revision(file) != newest
    assert "after" in whole_runs()
    assert store._revision(file) == newest
    assert list(made.glob("mlflow.db.*"))
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("update alembic_version set version_num = 'fedcba987654'")
    with pytest.raises(InputError, match="written by another version of MLflow"):
        store.check_store()


@pytest.mark.usefixtures("made")
def test_a_deleted_experiment_is_one_sentence() -> None:
    client = store.open_store()
    number = store.experiment_in(client)
    client.delete_experiment(number)
    with pytest.raises(InputError, match=f"was deleted; .* restore --experiment-id {number}"):
        store.check_store()
    client.restore_experiment(number)
    store.check_store()


def test_a_server_that_is_down_is_one_sentence_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    started = time.monotonic()
    with pytest.raises(InputError, match=f"http://127.0.0.1:{port}: no server answers there"):
        store.check_store()
    assert time.monotonic() - started < 6


def test_rows_of_dead_processes_are_ended_and_those_of_live_ones_not(made: Path) -> None:
    dead, live = start(made, "stay"), start(made, "stay")
    assert dead.stdout
    assert live.stdout
    gone, here = dead.stdout.readline().strip(), live.stdout.readline().strip()
    dead.send_signal(signal.SIGKILL)
    dead.communicate()
    try:
        whole_runs()
        client = store.open_store()
        assert client.get_run(gone).info.status == "KILLED"
        assert client.get_run(here).info.status == "RUNNING"
    finally:
        live.kill()
        live.communicate()


@pytest.mark.parametrize("name", NAMES)
def test_a_home_of_any_name_and_where_it_was_moved_to(
    name: str, new_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = use(tmp_path / "old" / name, monkeypatch)
    old.mkdir(parents=True)
    shutil.copyfile(new_store, old / "mlflow.db")
    with track.run("before") as run:
        run.config({"seed": 1})
    model = tmp_path / "model"
    model.mkdir()
    (model / "card.json").write_text("{}")
    logged = run.client.create_logged_model(run.experiment_id, "m", run.run_id)
    run.client.log_model_artifacts(logged.model_id, str(model), registry.TAGGER)
    run.client.create_registered_model("tai-x")
    run.client.create_model_version("tai-x", logged.artifact_location, run.run_id)
    assert (old / "mlflow.db").is_file()

    new = use(tmp_path / "new" / name, monkeypatch)
    new.parent.mkdir()
    shutil.move(old, new)
    assert find_model("tai-x/1").folder.resolve().is_relative_to(new.resolve())
    client = store.open_store()
    with track.run("after") as after:
        after.config({"seed": 2})
    for each, seed in ((run, "1"), (after, "2")):
        path = Path(client.download_artifacts(each.run_id, "config.json"))
        assert f'"seed": {seed}' in path.read_text(encoding="utf-8")
    assert not old.exists()
    assert not [each for each in Path().iterdir() if each.name.startswith("file:")]


@pytest.mark.usefixtures("made")
def test_later_runs_of_the_same_name_get_a_number() -> None:
    for _ in range(3):
        names = whole_runs()
    assert names == ["after #3", "after #2", "after"]


def test_a_port_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("http", "0", "70000", "-1", "5000 "):
        monkeypatch.setenv("TAI_MLFLOW_PORT", text)
        with pytest.raises(InputError, match=r"TAI_MLFLOW_PORT .*: no port"):
            track.mlflow_port()
