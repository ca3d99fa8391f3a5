"""MLflow: one run per `tai` run, a nested one per method, with all that made it."""

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from tasks.profile import Profile
from tasks.results.outcome import Outcome
from tasks.settings import ImageSet
from tasks.workspace import Stage, home

STAGES = "stages.json"
AP_TABLE = "ap.json"
EXPERIMENT = "tai-flows"
HOST = "127.0.0.1"
LONGEST_NAME = 120
LONGEST_PARAMETER = 6000
# read by MLflow whenever it copies files; ours are small and many
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


@dataclass(frozen=True)
class Run:
    """One MLflow run, named by its id: nothing depends on a global active run."""

    client: MlflowClient
    experiment_id: str
    run_id: str

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log numbers in one write."""
        now = time.time_ns() // 1_000_000
        metrics = [Metric(metric_name(k), float(v), now, step) for k, v in values.items()]
        self.client.log_batch(self.run_id, metrics=metrics)

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Log settings by dotted name."""
        params = [Param(name, str(value)[:LONGEST_PARAMETER]) for name, value in values.items()]
        self.client.log_batch(self.run_id, params=params)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Log a file."""
        self.client.log_artifact(self.run_id, str(path), folder)

    def outcome(self, outcome: Outcome) -> None:
        """Log which stages the run is made of, and AP by class as a table that the UI shows."""
        self.client.log_text(self.run_id, json.dumps(outcome.keys(), indent=2), STAGES)
        tables = [
            pandas.read_csv(
                stage.file("ap.csv"), dtype={"class": str}, keep_default_na=False
            ).assign(method=method, images=name)
            for method, of_method in outcome.evaluations.items()
            for name, stage in of_method.items()
        ]
        self.client.log_table(self.run_id, pandas.concat(tables), AP_TABLE)

    def config(self, values: Mapping[str, Any]) -> None:
        """Log the whole profile as config.json."""
        self.client.log_text(self.run_id, json.dumps(values, indent=2), "config.json")

    def dataset(self, name: str, stage: Stage, context: str) -> None:
        """Log a stage's output as a data set with its digest."""
        source = json.dumps({"uri": stage.place.as_uri()})
        dataset = Dataset(name, stage.digest[:36], "local", source, None, json.dumps(stage.counts))
        tag = InputTag("mlflow.data.context", context)
        self.client.log_inputs(self.run_id, datasets=[DatasetInput(dataset, [tag])])

    @property
    def link(self) -> str:
        """Address of the run's page, where MLflow's UI is up."""
        return f"{mlflow_ui()}/#/experiments/{self.experiment_id}/runs/{self.run_id}"

    def tag(self, name: str, value: str) -> None:
        """Set a tag."""
        self.client.set_tag(self.run_id, name, value)


def tracking_uri() -> str:
    """`$MLFLOW_TRACKING_URI`, or a SQLite file in the workspace."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home() / 'mlflow.db'}"


def mlflow_port() -> int:
    """Port of the UI that `make up` starts: `$TAI_MLFLOW_PORT`, or 5000."""
    return int(os.environ.get("TAI_MLFLOW_PORT", "5000"))


def mlflow_ui() -> str:
    """Address of MLflow's pages: the tracking server's, or that of `make up`."""
    uri = tracking_uri()
    return uri.rstrip("/") if uri.startswith("http") else f"http://{HOST}:{mlflow_port()}"


@contextmanager
def run(name: str, parent_id: str | None = None) -> Iterator[Run]:
    """A run that ends as FINISHED, or as FAILED if an exception passes."""
    home().mkdir(parents=True, exist_ok=True)
    client = MlflowClient(tracking_uri())
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        is_local = tracking_uri().startswith("sqlite:")
        location = (home() / "mlartifacts").as_uri() if is_local else None
        experiment_id = client.create_experiment(EXPERIMENT, artifact_location=location)
    else:
        experiment_id = experiment.experiment_id
    tags = {MLFLOW_RUN_NAME: name}
    if parent_id:
        tags[MLFLOW_PARENT_RUN_ID] = parent_id
    run_id = client.create_run(experiment_id, tags=tags).info.run_id
    try:
        yield Run(client, experiment_id, run_id)
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")


def run_name(profile: Profile, settings: Mapping[str, Any] | None) -> str:
    """`tai <profile>` and what was changed in it, so that a list of runs tells them apart."""
    changed = [f"{k}={v}" for k, v in (settings or {}).items() if k != "data"]
    return " ".join(["tai", profile.name, *changed])[:LONGEST_NAME]


def metrics_of(
    profile: Profile, image_set: ImageSet, figures: Mapping[str, float]
) -> dict[str, float]:
    """Figures of an image set as metrics; all but the first set's names are led by `<set>.`."""
    prefix = "" if image_set.name == profile.images[0].name else f"{image_set.name}."
    return {f"{prefix}{name}": value for name, value in figures.items() if name != "seconds"}


def metric_name(name: str) -> str:
    """A name that MLflow takes; class names are from outside."""
    return "/".join(re.sub(r"[^\w .-]", "_", part) for part in name.split("/", 1))
