"""`make up` and `make down`: Prefect's server, two workers, the deployments and MLflow's UI.

Everything listens on loopback; `TAI_PREFECT_PORT` and `TAI_MLFLOW_PORT` move the ports.

Who ends what: `down` ends all that `up` has started, and with a worker the runs that it has under
way (a kill -9 or a reboot does so too). The server still calls those running: the next `up` says
there that they have crashed, before a worker starts. What they had finished is in the home, so the
same run again goes on from there. A night that was missed is made up once.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from models.lazily import lazily
from tasks.code import ROOT
from tasks.errors import InputError
from tasks.processes import mark_of, pid_of
from tasks.settle import SETTINGS, is_up, pid_file, settle_prefect
from tasks.workspace import check_home, home

# `down` needs none of it
with lazily():
    from tasks.results.store import experiment_in, open_store, tracking_uri
    from tasks.results.track import mlflow_page, mlflow_port, mlflow_ui, port

PATIENCE_S = 120.0
BIN = Path(sys.executable).parent
HOST = "127.0.0.1"
GRACE_S = 3.0
POOLS = ("local", "gpu")


def up() -> None:
    """Start what is not running yet, all on loopback, and deploy the flows."""
    number, ui_port = port("TAI_PREFECT_PORT", 4200), mlflow_port()
    for name, its, setting in (
        ("prefect", number, "TAI_PREFECT_PORT"),
        ("mlflow", ui_port, "TAI_MLFLOW_PORT"),
    ):
        if not is_up(name) and not _is_free(its):
            raise InputError(f"port {its} is taken by another program; set {setting} to a free one")
    check_home()
    pages = mlflow_page(experiment_in(open_store()))
    (home() / "services").mkdir(parents=True, exist_ok=True)
    prefect = f"http://{HOST}:{number}"
    # its pages ask for data at the usual port, unless they are told
    os.environ["PREFECT_SERVER_UI_API_URL"] = os.environ["PREFECT_API_URL"] = f"{prefect}/api"
    server = ["prefect", "server", "start", "--host", HOST, "--port", str(number)]
    # both at once: each takes long to start
    _start("prefect", server)
    has_ui = tracking_uri().startswith("sqlite:")
    if has_ui:
        # one person looks at it: each of the usual four workers takes seconds and 250 MB to start
        ui = ["mlflow", "ui", "--backend-store-uri", tracking_uri(), "--host", HOST]
        _start("mlflow", [*ui, "--workers", "1", "--port", str(ui_port)])
    _await("prefect", f"{prefect}/api/health")
    # Prefect reads this file in the project's folder, so typed commands find the server
    SETTINGS.write_text(f'[api]\nurl = "{prefect}/api"\n', encoding="utf-8")
    with ThreadPoolExecutor() as threads:
        list(threads.map(_make_pool, POOLS))
    has_workers = any(is_up(f"worker-{pool}") for pool in POOLS)
    caught_up = [] if has_workers else _catch_up("before")
    _run("--no-prompt", "deploy", "--all")
    if not has_workers:
        _catch_up("after", *caught_up)
    for pool in POOLS:
        _start(f"worker-{pool}", ["prefect", "worker", "start", "--pool", pool])
    if has_ui:
        _await("mlflow", f"{mlflow_ui()}/health")
    sys.stdout.write(
        f"Prefect  {prefect}\nMLflow   {pages}\n"
        "Next     source .venv/bin/activate && prefect deployment run tai/full --watch\n"
    )


def down() -> None:
    """End what `up` started: all at once, and what does not end in time by force."""
    files = sorted((home() / "services").glob("*.pid"))
    running = [file for file in files if is_up(file.stem)]
    for file in running:
        _signal(file, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while any(is_up(file.stem) for file in running) and time.monotonic() < deadline:
        time.sleep(0.1)
    for file in running:
        _signal(file, signal.SIGKILL)
    for file in files:
        file.unlink()
    SETTINGS.unlink(missing_ok=True)


def _catch_up(*arguments: str) -> list[str]:
    """Ask the server, in a process that knows its address, what was missed; its answer's words."""
    command = [sys.executable, "-m", "tasks.serving.missed", *arguments]
    done = subprocess.run(  # noqa: S603
        command, cwd=ROOT, env=_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"error: what was missed cannot be found out:\n{done.stderr}")
    return done.stdout.split()


def _signal(file: Path, number: signal.Signals) -> None:
    try:
        os.killpg(pid_of(file.read_text(encoding="utf-8")), number)
    except ProcessLookupError:
        return


def _make_pool(name: str) -> None:
    _run("work-pool", "create", name, "--type", "process", "--overwrite")


def _await(name: str, health: str) -> None:
    """Wait until a server answers."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and is_up(name):
        try:
            with urllib.request.urlopen(health, timeout=5):  # noqa: S310
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    sys.exit(f"error: {name} does not answer at {health}; see {pid_file(name, '.log')}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _start(name: str, command: list[str]) -> None:
    """Start something unless it runs already."""
    file = pid_file(name)
    if is_up(name):
        return
    with file.with_suffix(".log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603
            [str(BIN / command[0]), *command[1:]],
            cwd=ROOT,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    file.write_text(mark_of(process.pid), encoding="utf-8")


def _run(*arguments: str) -> None:
    command = [str(BIN / "prefect"), *arguments]
    done = subprocess.run(  # noqa: S603
        command, cwd=ROOT, env=_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"error: prefect {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


def _environment() -> dict[str, str]:
    settings = {
        "TAI_ROOT": str(ROOT),
        "TAI_HOME": str(home()),
        # MLflow's UI alone: its job runners would be ten idle processes
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        # how often a worker asks for runs: what one types begins at once, not after 10 s
        "PREFECT_WORKER_QUERY_SECONDS": os.environ.get("PREFECT_WORKER_QUERY_SECONDS", "2"),
    }
    path = f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, **settings, "PATH": path}


if __name__ == "__main__":
    settle_prefect()
    try:
        {"up": up, "down": down}[sys.argv[1]]()
    except InputError as error:
        sys.exit(f"error: {error}")
