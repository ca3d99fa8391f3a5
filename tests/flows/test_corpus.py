"""The flow `corpus` as a user types it, on threads and on a Dask cluster of two workers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tasks import stages
from tasks.profile import load_profile

ROOT = Path(__file__).parents[2]


def corpus(home: Path, prefect: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    prefect.mkdir(parents=True, exist_ok=True)
    settings = {
        "TAI_HOME": str(home),
        "PREFECT_HOME": str(prefect),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    environment = {**os.environ, **settings}
    environment.pop("PREFECT_API_URL", None)
    return subprocess.run(
        [sys.executable, "-m", "flows.corpus", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def digests(home: Path) -> dict[str, str]:
    manifests = [json.loads(path.read_text()) for path in home.glob("*/*/manifest.json")]
    return {f"{one['stage']}/{one['key']}": one["digest"] for one in manifests}


def in_this_process(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAI_HOME", str(home))
    profile = load_profile(str(ROOT / "tests/small/small.toml"))
    vocabulary = stages.check_captions.fn(profile)
    for source, path in stages.caption_files(profile):
        stages.label_captions.fn(stages.ingest_file.fn(source, path), vocabulary)


def test_a_dask_cluster_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_this_process(tmp_path / "here", monkeypatch)
    on_dask = corpus(
        tmp_path / "dask",
        tmp_path / "prefect",
        *("--profile", "tests/small/small.toml"),
        *("--set", "runner=dask", "--set", "refresh.train_at_share=0.1"),
    )
    assert on_dask.returncode == 0, on_dask.stderr
    found = digests(tmp_path / "dask")
    assert found == digests(tmp_path / "here")
    assert sorted(name.split("/")[0] for name in found) == ["ingest", "ingest", "label", "label"]
    # no server to start `tai/full` on: it says what to type
    assert "train anew; run: python -m flows.tai --profile tests/small/small.toml" in on_dask.stderr
    client = MlflowClient(f"sqlite:///{tmp_path / 'dask' / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "tai-flows"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics["files/new"] == 2
    assert run.data.metrics["captions_of/dog"] > 0
    assert run.data.tags["trains"] == "True"
