"""A study as a user types it: nested runs, a table and a page."""

from pathlib import Path

from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from tests.flows.command import run_python


def test_a_study_is_a_run_with_a_nested_one_per_variant(tmp_path: Path) -> None:
    asked = ["position", "--seeds", "1", "--profile", "tests/small/small.toml"]
    once = "methods.tai-dpt.epochs=1"
    done = run_python(tmp_path, "-m", "flows.ablations", *asked, "--set", once)
    assert done.returncode == 0, done.stderr
    page = tmp_path / "ablations" / "position-small.html"
    assert f"see it: {page}" in done.stdout
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (experiment,) = [one for one in client.search_experiments() if one.name == "tai-flows"]
    runs = client.search_runs([experiment.experiment_id])
    (study,) = [run for run in runs if run.data.tags.get("study") == "position"]
    variants = [run for run in runs if run.data.tags.get(MLFLOW_PARENT_RUN_ID) == study.info.run_id]
    scores = {run.data.params["variant"]: run.data.metrics["mAP/small"] for run in variants}
    assert set(scores) == {"end", "middle", "front"}
    text = page.read_text(encoding="utf-8")
    for variant, score in scores.items():
        assert f"{score:.1f}" in text
        assert variant in text
    # what is shown is what was typed
    assert " ".join(["python -m flows.ablations", *asked, f"--set {once}"]) in text
