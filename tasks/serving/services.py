"""`make up` and `make down`: Prefect's server, two workers, the deployments and MLflow's UI.

Everything listens on loopback; `TAI_PREFECT_PORT` and `TAI_MLFLOW_PORT` move the ports.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

from tasks.code import ROOT
from tasks.results.store import tracking_uri
from tasks.results.track import HOST, mlflow_port, mlflow_ui
from tasks.workspace import home

PATIENCE_S = 120.0
BIN = Path(sys.executable).parent
SETTINGS = ROOT / "prefect.toml"


def up() -> None:
    """Start what is not running yet, all on loopback, and deploy the flows."""
    (home() / "services").mkdir(parents=True, exist_ok=True)
    port = int(os.environ.get("TAI_PREFECT_PORT", "4200"))
    prefect = f"http://{HOST}:{port}"
    server = ["prefect", "server", "start", "--host", HOST, "--port", str(port)]
    _serve("prefect", server, port, "TAI_PREFECT_PORT", f"{prefect}/api/health")
    # Prefect reads this file in the project's folder, so typed commands find the server
    SETTINGS.write_text(f'[api]\nurl = "{prefect}/api"\n', encoding="utf-8")
    for pool in ("local", "gpu"):
        _run("work-pool", "create", pool, "--type", "process", "--overwrite")
    _run("--no-prompt", "deploy", "--all")
    for pool in ("local", "gpu"):
        _start(f"worker-{pool}", ["prefect", "worker", "start", "--pool", pool])
    if tracking_uri().startswith("sqlite:"):
        ui = ["mlflow", "ui", "--backend-store-uri", tracking_uri(), "--host", HOST]
        command = [*ui, "--port", str(mlflow_port())]
        _serve("mlflow", command, mlflow_port(), "TAI_MLFLOW_PORT", f"{mlflow_ui()}/health")
    sys.stdout.write(
        f"Prefect  {prefect}\nMLflow   {mlflow_ui()}\n"
        "Next     source .venv/bin/activate && prefect deployment run tai/full --watch\n"
    )


def down() -> None:
    """End what `up` started."""
    for file in sorted((home() / "services").glob("*.pid")):
        _stop(file)
    SETTINGS.unlink(missing_ok=True)


def _serve(name: str, command: list[str], port: int, setting: str, health: str) -> None:
    """Start a server unless it runs already, and wait until it answers."""
    if not _is_running(_pid_file(name)) and not _is_free(port):
        sys.exit(f"error: port {port} is taken by another program; set {setting} to a free one")
    _start(name, command)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and _is_running(_pid_file(name)):
        try:
            with urllib.request.urlopen(health, timeout=5):  # noqa: S310
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    sys.exit(f"error: {name} does not answer at {health}; see {_pid_file(name, '.log')}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _pid_file(name: str, suffix: str = ".pid") -> Path:
    return home() / "services" / f"{name}{suffix}"


def _start(name: str, command: list[str]) -> None:
    file = _pid_file(name)
    if _is_running(file):
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
    file.write_text(f"{process.pid} {_started(process.pid)}", encoding="utf-8")


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
    }
    path = f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, **settings, "PATH": path}


def _started(pid: int) -> str:
    """When a process began: tells it from a later one of the same number; '' if it has ended."""
    try:
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else str(process.create_time())
    except psutil.NoSuchProcess:
        return ""


def _is_running(file: Path) -> bool:
    if not file.is_file():
        return False
    pid, _, started = file.read_text(encoding="utf-8").partition(" ")
    return bool(started) and _started(int(pid)) == started


def _stop(file: Path) -> None:
    if _is_running(file):
        group = int(file.read_text(encoding="utf-8").split()[0])
        os.killpg(group, signal.SIGTERM)
        deadline = time.monotonic() + 20
        while _is_running(file) and time.monotonic() < deadline:
            time.sleep(0.2)
        if _is_running(file):
            os.killpg(group, signal.SIGKILL)
    file.unlink()


if __name__ == "__main__":
    {"up": up, "down": down}[sys.argv[1]]()
