"""`make up` and `make down`: Prefect's server, two workers, the deployments and MLflow's UI."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from tasks.store import ROOT, home
from tasks.track import tracking_uri

HOST = "127.0.0.1"
PREFECT_PORT, MLFLOW_PORT = 4200, 5000
PATIENCE_S = 120.0
BIN = Path(sys.executable).parent
SETTINGS = ROOT / "prefect.toml"
PREFECT_API = f"http://{HOST}:{PREFECT_PORT}/api"


def up() -> None:
    """Start what is not running yet, all on loopback, and deploy the flows."""
    folder = home() / "services"
    folder.mkdir(parents=True, exist_ok=True)
    _start("prefect", ["prefect", "server", "start", "--host", HOST, "--port", str(PREFECT_PORT)])
    _await("Prefect", f"{PREFECT_API}/health", folder / "prefect.log")
    # Prefect reads this file in the project's folder, so typed commands find the server
    SETTINGS.write_text(f'[api]\nurl = "{PREFECT_API}"\n', encoding="utf-8")
    for pool in ("local", "gpu"):
        _run("work-pool", "create", pool, "--type", "process", "--overwrite")
    _run("--no-prompt", "deploy", "--all")
    for pool in ("local", "gpu"):
        _start(f"worker-{pool}", ["prefect", "worker", "start", "--pool", pool])
    ui = ["mlflow", "ui", "--backend-store-uri", tracking_uri()]
    _start("mlflow", [*ui, "--host", HOST, "--port", str(MLFLOW_PORT)])
    _await("MLflow", f"http://{HOST}:{MLFLOW_PORT}/health", folder / "mlflow.log")
    sys.stdout.write(
        f"Prefect  http://{HOST}:{PREFECT_PORT}\nMLflow   http://{HOST}:{MLFLOW_PORT}\n"
        "Next     source .venv/bin/activate && prefect deployment run tai/full --watch\n"
    )


def down() -> None:
    """End what `up` started."""
    for file in sorted((home() / "services").glob("*.pid")):
        _stop(file)
    SETTINGS.unlink(missing_ok=True)


def _start(name: str, command: list[str]) -> None:
    file = home() / "services" / f"{name}.pid"
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
    settings = {"TAI_ROOT": str(ROOT), "TAI_HOME": str(home())}
    path = f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, **settings, "PATH": path}


def _await(name: str, url: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    sys.exit(f"error: {name} does not answer at {url}; see {log}")


def _started(pid: int) -> str:
    """When a process began, in the kernel's ticks: tells it from a later one of the same number."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return ""
    return status.rpartition(")")[2].split()[19]


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
