"""`make up`, a typed run that launches another one, `make down`; in a copy of the project."""

import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient

from tasks.errors import InputError
from tasks.serving import services
from tests import prefect_homes
from tests.browser import browser

ROOT = Path(__file__).parents[3]
BUSY_S = 5
"""For a machine that does other things too."""
WORLD = {"world.captions": 200, "world.scenes": 30, "world.labelled": 30}
PARTS = ("flows", "tasks", "models", "sql", "demo", "prefect.yaml")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Project:
    """A copy of the project, since `up` writes Prefect's settings into the project's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / ".tai"
        self.told = ""
        for part in PARTS:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, folder / part)
        settings = {
            "TAI_HOME": str(self.home),
            "TAI_PREFECT_PORT": str(free_port()),
            "TAI_MLFLOW_PORT": str(free_port()),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        prefect_homes.begin(self.home / "prefect")
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
        project.told = done.stdout
        yield project
    finally:
        project.services("down")


def test_a_typed_run_launches_fit_on_the_gpu_pool(project: Project) -> None:
    settings = json.dumps(WORLD | {"fit": "fit/gpu", "methods.tai-dpt.epochs": 1})
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
    # the list of runs says how it went, and where to look
    (run,) = flow_runs(project, "tai")
    page = next((project.home / "report").glob("*/index.html"))
    assert re.fullmatch(rf".+: mAP [\d.]+ on .+; {page}", run["state"]["message"])
    # a line of a task is shown with the task's name
    lines = logs_of(project, flow_runs(project, "fit")[0])
    assert any(line["name"] == "tai" and line["task_run_id"] for line in lines)
    links = [each["data"] for each in api(project, "artifacts/filter", {"limit": 100})]
    assert any("](http://" in str(link) for link in links)
    assert not [link for link in links if "](file:" in str(link)]


def test_a_run_that_fails_says_one_sentence(project: Project) -> None:
    prefect = str(Path(sys.executable).parent / "prefect")
    settings = json.dumps(WORLD | {"images.0.folder": "nowhere"})
    command = (prefect, "deployment", "run", "tai/full", "--watch")
    done = project.run(*command, "--param", f"settings={settings}")
    (run,) = (each for each in flow_runs(project, "tai") if each["state"]["type"] == "FAILED")
    assert re.fullmatch(r"[^\n]*nowhere: no such folder[^\n]*", run["state"]["message"])
    assert done.returncode, done.stdout
    lines = logs_of(project, run)
    assert [line["message"] for line in lines if line["level"] >= logging.ERROR] == [
        run["state"]["message"]
    ]
    assert not [line for line in lines if "Traceback" in line["message"]]
    (local,) = (project.home / "services").glob("worker-local.log")
    assert "Traceback" not in local.read_text()


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


def test_pages_ask_for_data_where_the_server_is(project: Project) -> None:
    port = project.environment["TAI_PREFECT_PORT"]
    asked = json.loads(project.get("TAI_PREFECT_PORT", "/ui-settings"))
    assert asked["api_url"] == f"http://127.0.0.1:{port}/api"
    # all that Prefect keeps lies in the home
    assert (project.home / "prefect" / "prefect.db").is_file()


def test_mlflows_pages_open_as_model_training(project: Project, tmp_path: Path) -> None:
    (address,) = re.findall(r"^MLflow +(\S+)$", project.told, re.MULTILINE)
    with browser(tmp_path) as page:
        page.visit(address, "Boolean(document.body?.innerText.includes('Run Name'))")
        assert "/#/experiments/1/runs?" in page.ask("location.href")
        assert "Judges" not in page.ask("document.body.innerText")


def api(project: Project, path: str, body: object = None) -> Any:
    port = project.environment["TAI_PREFECT_PORT"]
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/{path}",
        json.dumps(body).encode() if body else None,
        {"Content-Type": "application/json"},
    )
    for _ in range(9):
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            # its SQLite is busy: ask again, says Prefect
            if error.code != 503:
                raise
            time.sleep(2)
    raise AssertionError(f"{path}: busy for long")


def flow_runs(project: Project, flow: str) -> list[Any]:
    return list(api(project, "flow_runs/filter", {"flows": {"name": {"any_": [flow]}}}))


def logs_of(project: Project, run: Any) -> list[Any]:
    asked = {"logs": {"flow_run_id": {"any_": [run["id"]]}}, "limit": 200}
    return list(api(project, "logs/filter", asked))


def until(found: Callable[[], Any], patience_s: float = 240) -> Any:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        value = found()
        if value:
            return value
        time.sleep(1)
    raise AssertionError("it did not come about in time")


def runs_of(project: Project, deployment: str, kind: str) -> list[Any]:
    body = {
        "deployments": {"id": {"any_": [deployment]}},
        "flow_runs": {"state": {"type": {"any_": [kind]}}},
    }
    return list(api(project, "flow_runs/filter", body))


def test_a_cron_of_every_minute_makes_and_finishes_a_run(project: Project) -> None:
    nightly = api(project, "deployments/name/corpus/nightly")
    assert nightly["global_concurrency_limit"]["limit"] == 1
    assert nightly["tags"] == ["captions", "refresh", "nightly"]
    # its next nights are planned
    assert until(lambda: len(runs_of(project, nightly["id"], "SCHEDULED")) >= 3, 90)
    schedule = {"schedule": {"cron": "* * * * *", "timezone": "UTC"}, "active": True}
    planned = [schedule | {"parameters": {"settings": WORLD}}]
    api(project, f"deployments/{nightly['id']}/schedules", planned)
    done = until(lambda: runs_of(project, nightly["id"], "COMPLETED"))
    assert all(run["auto_scheduled"] for run in done)


def test_up_again_keeps_what_runs_and_down_ends_it(project: Project) -> None:
    files = sorted((project.home / "services").glob("*.pid"))
    pids = [int(file.read_text().split()[2]) for file in files]
    assert len(pids) == 4
    assert project.services("up").returncode == 0
    assert [int(file.read_text().split()[2]) for file in files] == pids
    started = time.monotonic()
    assert project.services("down").returncode == 0
    assert time.monotonic() - started < 5 + BUSY_S
    alive = [p for p in pids if psutil.pid_exists(p) and psutil.Process(p).status() != "zombie"]
    assert not alive
    assert not (project.folder / "prefect.toml").exists()


def test_an_ended_servers_address_is_not_believed(project: Project) -> None:
    (project.folder / "prefect.toml").write_text('[api]\nurl = "http://127.0.0.1:9/api"\n')
    (project.home / "services" / "prefect.pid").write_text("here boot 1 1")
    done = project.run(sys.executable, "-c", "import flows.corpus")
    assert done.returncode == 0, done.stderr
    assert "of a server that has ended; removed" in done.stderr
    assert not (project.folder / "prefect.toml").exists()


def test_a_taken_port_is_named(project: Project) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", int(project.environment["TAI_PREFECT_PORT"])))
        other.listen()
        done = project.services("up")
    assert done.returncode != 0
    assert "is taken by another program; set TAI_PREFECT_PORT" in done.stderr


@pytest.mark.parametrize("text", ["http", "0", "99999"])
def test_a_port_that_is_none_is_one_sentence(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAI_PREFECT_PORT", text)
    with pytest.raises(InputError) as told:
        services.up()
    assert (
        str(told.value) == f"TAI_PREFECT_PORT '{text}': no port; expected a number from 1 to 65535"
    )
