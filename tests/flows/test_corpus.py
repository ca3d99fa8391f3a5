"""The flow `corpus`, captions and images encoded, on clusters of two workers: the same bytes."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tasks.images import parts
from tasks.images.encode import encode_pictures
from tasks.profile import load_profile
from tests.tasks.road import choose, encode_all, small_pictures

from .command import ROOT, run_python

SMALL = "tests/small/small.toml"


def digests(home: Path) -> dict[str, str]:
    manifests = [json.loads(path.read_text()) for path in home.glob("*/*/manifest.json")]
    return {f"{one['stage']}/{one['key']}": one["digest"] for one in manifests}


@pytest.fixture(scope="module")
def in_this_process(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAI_HOME", str(home))
        patch.chdir(ROOT)
        profile = load_profile(SMALL)
        _, _, choice = choose(profile)
        encode_all(profile, choice)
        patch.setattr(parts, "IMAGES_PER_PART", 8)
        encode_pictures(profile, small_pictures())
    return digests(home)


@pytest.mark.parametrize("runner", ["dask", "ray"])
def test_a_cluster_gives_the_same_bytes(
    tmp_path: Path, in_this_process: dict[str, str], runner: str
) -> None:
    if find_spec(f"prefect_{runner}") is None:
        pytest.skip(f"the extra `{runner}` is not installed")
    done = run_python(tmp_path, "tests/flows/cluster.py", runner)
    assert done.returncode == 0, done.stderr
    found = digests(tmp_path)
    assert found == in_this_process
    made = [name.split("/")[0] for name in found]
    # of two files and the templates
    counts = {stage: made.count(stage) for stage in made}
    assert counts == {"ingest": 2, "label": 2, "choose": 1, "encode": 3, "features": 2, "images": 1}
    # no server to start `tai/full` on: it says what to type
    assert f"train anew; run: python -m flows.tai --profile {SMALL}" in done.stderr
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "tai-flows"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics["files/new"] == 2
    assert run.data.metrics["captions_of/dog"] > 0
    assert run.data.tags["trains"] == "True"
