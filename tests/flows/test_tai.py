"""The whole road as a user types it, in processes of their own, and its answers to bad input."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import mlflow
import pandas as pd
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from flows.compare import compare
from flows.doors import check
from tasks.errors import InputError
from tasks.profile import load_profile
from tasks.results.runs import find_runs
from tasks.serving import registry
from tasks.serving.named import find_model
from tasks.serving.served import ALLOWED
from tests.mounts import read_only

from .command import ROOT, run_python

SMALL = "tests/small"
EPOCHS = "methods.tai-dpt.epochs"
CONFIGS = "mlartifacts/*/artifacts/config.json"
TAKE_LONG = (
    "import json, sys\n"
    "heavy = 'torch open_clip torchvision mlflow nltk matplotlib prefect.server'.split()\n"
    "def imported(): return [name for name in heavy if name in sys.modules]\n"
)
AS_TYPED = (
    f"{TAKE_LONG}import runpy\n"
    "for sys.argv in json.loads(sys.argv[1]):\n"
    "    try: runpy.run_module(sys.argv[0], run_name='__main__')\n"
    "    except SystemExit as ended: print(ended.code)\n"
    "import psutil\n"
    "left = [each.cmdline() for each in psutil.Process().children()]\n"
    "print(json.dumps([imported(), left]))\n"
)
FOUND_DONE = (
    f"{TAKE_LONG}"
    "from tasks.profile import load_profile\n"
    "from tests.tasks.road import tagged, whole_run\n"
    "profile = load_profile(json.loads(sys.argv[1]))\n"
    "outcome = tagged(profile, whole_run(profile))\n"
    "print(json.dumps([any(stage.fresh for _, stage in outcome.all()), imported()]))\n"
)


def tai(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_python(home, "-m", "flows.tai", *arguments)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    home = tmp_path_factory.mktemp("home")
    copy = tmp_path_factory.mktemp("data") / "small"
    shutil.copytree(ROOT / SMALL, copy)
    (copy / "images" / "000002.png").write_bytes(b"no image at all")
    done = tai(
        home,
        "--profile",
        f"{SMALL}/small.toml",
        "--data",
        str(copy),
        "--set",
        "methods.tai-dpt.epochs=2",
    )
    assert done.returncode == 0, done.stderr
    return home, done.stdout + done.stderr


def test_the_table_and_the_warning_are_shown(small: tuple[Path, str]) -> None:
    _, output = small
    for word in ("zero-shot", "tai-dpt", "global", "local", "merged"):
        assert word in output
    assert "random weights: every score of this run is meaningless" in output


def test_the_page_is_made_and_its_path_printed(small: tuple[Path, str]) -> None:
    home, output = small
    (page,) = (home / "report").glob("*/index.html")
    assert f"see it: {page}" in output
    text = page.read_text(encoding="utf-8")
    assert "11 of 12 images" in text
    assert "000002.png: not a whole image" in text
    assert "These scores mean nothing" in text


def test_a_broken_image_is_left_out_and_named(small: tuple[Path, str]) -> None:
    home, output = small
    assert "000002.png left out: not a whole image" in output
    (rejects,) = (home / "images").glob("*/rejects.parquet")
    assert [row["file"] for row in pq.read_table(rejects).to_pylist()] == ["000002.png"]


def test_mlflow_has_the_run_and_one_per_method(small: tuple[Path, str]) -> None:
    home, _ = small
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "tai-flows"]
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    headline = f"tai-dpt small {EPOCHS}=2"
    assert set(runs) == {headline, "zero-shot small", "tai-dpt small"}
    parent, trained = runs[headline], runs["tai-dpt small"]
    assert trained.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.data.params[EPOCHS] == "2"
    assert parent.data.metrics["captions/read"] == 160
    losses = client.get_metric_history(trained.info.run_id, "loss/train")
    assert [metric.step for metric in losses] == [0, 1]
    assert len(client.get_metric_history(trained.info.run_id, "learning_rate")) == 2
    for run in runs.values():
        assert {"mAP", "mAP/small", "mAP_low/small", "mAP_high/small"} <= set(run.data.metrics)
        assert not any(name.startswith("AP/") for name in run.data.metrics)
        assert run.data.metrics["mAP"] == run.data.metrics["mAP/small"]
        assert run.info.status == "FINISHED"
        assert all(entry.dataset.digest for entry in run.inputs.dataset_inputs)
        assert run.inputs.dataset_inputs
    assert {"mAP_global/small", "mAP_local/small"} <= set(trained.data.metrics)
    assert next(iter(parent.data.metrics)) == "mAP"
    assert len(parent.data.metrics) <= 16
    assert "| small | tai-dpt |" in parent.data.tags["mlflow.note.content"]
    assert parent.data.tags["mlflow.source.name"].startswith("python -m flows.tai --profile")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    (model,) = client.search_logged_models([experiment.experiment_id])
    assert (model.source_run_id, model.status) == (parent.info.run_id, "READY")
    assert [each.model_id for each in parent.outputs.model_outputs] == [model.model_id]
    artifacts = {entry.path for entry in client.list_artifacts(trained.info.run_id, "state")}
    assert artifacts == {"state/state.safetensors", "state/card.json"}
    assert {entry.path for entry in client.list_artifacts(parent.info.run_id)} == {
        "ap.json",
        "config.json",
        "index.html",
        "stages.json",
        "tags",
        "vocabulary",
    }


def test_scores_give_the_reported_map(small: tuple[Path, str]) -> None:
    home, _ = small
    for metrics in (home / "evaluate").glob("*/metrics.json"):
        rows = pq.read_table(metrics.parent / "scores.parquet").to_pylist()
        classes = [
            line.split(",")[0].strip('"')
            for line in (metrics.parent / "ap.csv").read_text().splitlines()[1:]
        ]
        found = []
        for column, name in enumerate(classes):
            ranked = sorted(rows, key=lambda row, at=column: -row["merged"][at])
            hits = [name in row["classes"] for row in ranked]
            if any(hits):
                precisions = [sum(hits[: i + 1]) / (i + 1) for i, hit in enumerate(hits) if hit]
                found.append(sum(precisions) / len(precisions))
        expected = 100 * sum(found) / len(found)
        assert json.loads(metrics.read_text())["mAP/merged"] == pytest.approx(expected)


def test_bad_input_is_one_sentence(tmp_path: Path) -> None:
    small = ["--profile", f"{SMALL}/small.toml"]
    asked = {
        "no file": ["flows.tai", *small, "--set", "sources.0.path=nothing.json"],
        "did you mean 'coco-mini'?": ["flows.quality", "--profile", "coco-minni"],
        "'methods.tai-dpt.epoch'": ["flows.tai", *small, "--set", "methods.tai-dpt.epoch=3"],
        "study 'lenght' is unknown": ["flows.ablations", "lenght"],
        "no such folder": ["flows.predict", "nowhere"],
        "did you mean RN50, ": ["flows.tai", *small, "--set", "backbone.model=RN5O"],
    }
    done = run_python(tmp_path, "-W", "ignore", "-c", AS_TYPED, json.dumps(list(asked.values())))
    assert done.returncode == 0, done.stderr
    # no traceback, no other noise
    assert not done.stderr
    *told, found = done.stdout.splitlines()
    assert len(told) == len(asked)
    for sentence, message in zip(told, asked, strict=True):
        assert sentence.startswith("error: ")
        assert message in sentence
    # within seconds: nothing is imported that takes some; the server that had begun has ended
    assert json.loads(found) == [[], []]
    assert not (tmp_path / "ingest").exists()


def test_what_is_done_is_found_without_what_does_it(small: tuple[Path, str]) -> None:
    home, _ = small
    (profile,) = (json.loads(path.read_text()) for path in home.glob(CONFIGS) if _is_whole(path))
    done = run_python(home, "-c", FOUND_DONE, json.dumps(profile))
    assert done.returncode == 0, done.stderr
    fresh, imported = json.loads(done.stdout.splitlines()[-1])
    assert not fresh
    # MLflow keeps a record of each run
    assert imported == ["mlflow"]


def _is_whole(config: Path) -> bool:
    return (config.parent / "stages.json").is_file()


def test_a_read_only_home_serves_what_is_done(small: tuple[Path, str], tmp_path: Path) -> None:
    home, told = small
    config = next(json.loads(path.read_text()) for path in home.glob(CONFIGS) if _is_whole(path))
    copy = tmp_path / "home"
    shutil.copytree(home, copy)
    asked = ["--profile", f"{SMALL}/small.toml", "--data", config["data"], "--set", f"{EPOCHS}=2"]
    with read_only(copy):
        before = sorted(str(path) for path in copy.rglob("*"))
        done = tai(copy, *asked)
        assert sorted(str(path) for path in copy.rglob("*")) == before
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "may not be written: this run's record in MLflow is not kept" in done.stderr
    table = re.findall(r"│ small.*│", told)
    assert table
    assert re.findall(r"│ small.*│", done.stdout) == table


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("backbone.model", "RN5O", "field 'backbone.model'"),
        ("backbone.pretrained", "nowhere.safetensors", "no weights file"),
        ("images.0.form", "voc2007", r"instances_demo.json, line 3"),
        ("images.0.folder", "nowhere", "no such folder"),
        ("images.0.annotations", "captions_demo.json", "instances"),
        ("sources.0.path", "instances_demo.json", "looks like instances"),
    ],
)
def test_the_door_names_the_field_or_file(setting: str, value: str, message: str) -> None:
    profile = load_profile(str(ROOT / SMALL / "small.toml"), {setting: value})
    with pytest.raises(InputError, match=message):
        check(profile)


def test_the_best_model_is_registered_and_tags_paths_and_bytes(
    small: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, _ = small
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}")
    mlflow.set_tracking_uri(None)
    client = MlflowClient()
    (best,) = client.search_model_versions("name = 'tai-small'")
    assert registry.best_version(client, "tai-small") is None  # its CLIP has random weights
    files = [
        path for path in Path(best.source.removeprefix("file://")).rglob("*") if path.is_file()
    ]
    assert files
    assert not [path for path in files if path.suffix in (".pkl", ".pickle", ".pt", ".pth")]
    model = mlflow.pyfunc.load_model("models:/tai-small/1")
    image = ROOT / SMALL / "images" / "000004.png"
    monkeypatch.setenv(ALLOWED, str(image.parent))
    by_path = model.predict(pd.DataFrame({"path": [image.name]}), params={"top": 6})
    by_bytes = model.predict(pd.DataFrame({"image": [image.read_bytes()]}), params={"top": 6})
    assert by_path["tags"][0] == by_bytes["tags"][0]
    # the same scores as the evaluation's, up to its features' fp16
    (scores,) = [
        row["merged"]
        for path in (home / "evaluate").glob("*/scores.parquet")
        if '"method": "tai-dpt"' in (path.parent / "manifest.json").read_text()
        for row in pq.read_table(path).to_pylist()
        if row["file"] == image.name
    ]
    found = sorted((tag["score"] for tag in by_path["tags"][0]), reverse=True)
    assert found == pytest.approx(sorted(scores, reverse=True), abs=2e-3)
    bad = model.predict(pd.DataFrame({"image": [b"no image", image.read_bytes()]}))
    assert bad["reason"][0].startswith("not a whole image")
    assert bad["reason"][1] is None


def test_a_damaged_model_is_refused_and_made_anew_by_the_next_run(
    small: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, _ = small
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("TAI_HOME", str(home))
    (last,) = find_runs(["latest"])
    command = last.data.tags["mlflow.source.name"]
    folder = find_model("tai-small/1").folder
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {"card.json", "seal.json", "state.safetensors"} < set(whole)
    for name in whole:
        (folder / name).write_bytes(whole[name][:-1] + b"?")
        with pytest.raises(InputError, match=rf"{name}: .*; flows.tai .* makes it anew"):
            find_model("tai-small/1")
        (folder / name).write_bytes(whole[name])
    (folder / "state.safetensors").unlink()
    done = tai(home, *shlex.split(command)[3:])
    assert done.returncode == 0, done.stderr
    assert "state.safetensors: cannot be read" in done.stderr
    assert "set aside and made anew" in done.stderr
    folder = find_model("tai-small/1").folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole


def test_runs_are_compared_by_name(
    small: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home, _ = small
    monkeypatch.setenv("TAI_HOME", str(home))
    page = compare(["latest", f"tai-dpt small {EPOCHS}=2"])
    shown = capsys.readouterr().out
    assert "all settings are the same" in shown
    assert "No clear winner" in shown
    assert "Comparing 2 runs" in page.read_text(encoding="utf-8")
    with pytest.raises(InputError, match="run 'nowhere' fits no finished run"):
        compare(["nowhere", "latest"])
