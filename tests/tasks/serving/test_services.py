"""`make up`, a typed run that launches another one, `make down`; in a copy of the project."""

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

ROOT = Path(__file__).parents[3]
PARTS = ("flows", "tasks", "models", "sql", "demo", "prefect.yaml")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Project:
    """A copy of the project, since `up` writes Prefect's settings into the project's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / ".tai"
        for part in PARTS:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, folder / part)
        settings = {
            "TAI_HOME": str(self.home),
            "TAI_PREFECT_PORT": str(free_port()),
            "TAI_MLFLOW_PORT": str(free_port()),
            "PREFECT_HOME": str(self.home / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        # a server of whoever runs the tests is none of ours
        outside = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        self.environment = outside | settings

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def services(self, verb: str) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "tasks.serving.services", verb)

    def get(self, port: str, path: str) -> bytes:
        address = f"http://127.0.0.1:{self.environment[port]}{path}"
        with urllib.request.urlopen(address, timeout=30) as answer:
            return bytes(answer.read())


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    project = Project(tmp_path_factory.mktemp("project"))
    try:
        done = project.services("up")
        assert done.returncode == 0, done.stdout + done.stderr
        yield project
    finally:
        project.services("down")


def test_a_typed_run_launches_fit_on_the_gpu_pool(project: Project) -> None:
    small = {
        "world.captions": 200,
        "world.scenes": 30,
        "world.labelled": 30,
        "methods.tai-dpt.epochs": 1,
    }
    settings = json.dumps({"fit": "fit/gpu"} | small)
    prefect = str(Path(sys.executable).parent / "prefect")
    command = (prefect, "deployment", "run", "tai/full", "--watch")
    done = project.run(*command, "--param", f"settings={settings}")
    logs = [path.read_text() for path in (project.home / "services").glob("worker-*.log")]
    assert done.returncode == 0, "\n".join([done.stdout, done.stderr, *logs])
    # both flows ran, each on its own pool, and the launcher got the other's results
    client = MlflowClient(f"sqlite:///{project.home / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "tai-flows"]
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.info.status == "FINISHED"
    assert "mAP" in parent.data.metrics
    (gpu,) = (project.home / "services").glob("worker-gpu.log")
    assert "fit tai-dpt" in gpu.read_text()


def test_both_servers_answer_on_loopback_alone(project: Project) -> None:
    assert b"true" in project.get("TAI_PREFECT_PORT", "/api/health").lower()
    assert project.get("TAI_MLFLOW_PORT", "/health") == b"OK"
    ours = {int(project.environment[f"TAI_{name}_PORT"]) for name in ("PREFECT", "MLFLOW")}
    listening = [
        connection.laddr
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port in ours
    ]
    assert {address.port for address in listening} == ours
    assert {address.ip for address in listening} == {"127.0.0.1"}


def test_up_again_keeps_what_runs_and_down_ends_it(project: Project) -> None:
    files = sorted((project.home / "services").glob("*.pid"))
    pids = [int(file.read_text().split()[0]) for file in files]
    assert len(pids) == 4
    assert project.services("up").returncode == 0
    assert [int(file.read_text().split()[0]) for file in files] == pids
    assert project.services("down").returncode == 0
    alive = [p for p in pids if psutil.pid_exists(p) and psutil.Process(p).status() != "zombie"]
    assert not alive
    assert not (project.folder / "prefect.toml").exists()


def test_a_taken_port_is_named(project: Project) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", int(project.environment["TAI_PREFECT_PORT"])))
        other.listen()
        done = project.services("up")
    assert done.returncode != 0
    assert "is taken by another program; set TAI_PREFECT_PORT" in done.stderr
