"""MLflow: one run per `tai` run, a nested one per method, with all that made it."""

from __future__ import annotations

import getpass
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.lazily import lazily
from tasks.errors import InputError
from tasks.processes import is_running, mark_of
from tasks.profile import Profile
from tasks.results.outcome import Outcome
from tasks.results.store import experiment_in, keep_store, open_store, tracking_uri
from tasks.results.tags import TABLE
from tasks.workspace import Stage

with lazily():
    import pandas
    from mlflow import MlflowClient
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
    from mlflow.utils import mlflow_tags

LOG = logging.getLogger("tai")

STAGES = "stages.json"
AP_TABLE = "ap.json"
AS_TRAINING = "?workflowType=machine_learning"
"""Without it MLflow's pages are of language models (traces, judges), whatever the experiment."""
HOST = "127.0.0.1"
LONGEST_NAME = 120
LONGEST_PARAMETER = 6000
PROCESS = "tai.process"
"""The tag that tells whether a run that is RUNNING has a process."""
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

    def page(self, path: Path) -> str:
        """Log an HTML page; its address in MLflow's UI, as browsers refuse links to files."""
        self.artifact(path)
        return mlflow_page(self.experiment_id, "runs", self.run_id, "artifacts", path.name)

    def outcome(self, outcome: Outcome, *, report: Stage) -> None:
        """Log which stages the run is made of, and AP by class as a table that the UI shows."""
        keys = outcome.keys() | {"report": report.key}
        self.client.log_text(self.run_id, json.dumps(keys, indent=2), STAGES)
        tables = [
            pandas.read_csv(
                stage.file("ap.csv"), dtype={"class": str}, keep_default_na=False
            ).assign(method=method, images=name)
            for method, of_method in outcome.evaluations.items()
            for name, stage in of_method.items()
        ]
        for name, stage in outcome.tags.items():
            self.artifact(stage.file(TABLE), f"tags/{name}")
        if tables:
            self.client.log_table(self.run_id, pandas.concat(tables), AP_TABLE)

    def config(self, values: Mapping[str, Any]) -> None:
        """Log the whole profile as config.json."""
        self.client.log_text(self.run_id, json.dumps(values, indent=2), "config.json")

    def dataset(self, name: str, stage: Stage, context: str) -> None:
        """Log a stage's output as a data set with its digest."""
        source = json.dumps({"uri": f"{stage.name}/{stage.key}"})
        dataset = Dataset(name, stage.digest[:36], "local", source, None, json.dumps(stage.counts))
        tag = InputTag("mlflow.data.context", context)
        self.client.log_inputs(self.run_id, datasets=[DatasetInput(dataset, [tag])])

    @property
    def link(self) -> str:
        """Address of the run's page, where MLflow's UI is up."""
        return mlflow_page(self.experiment_id, "runs", self.run_id)

    def describe(self, text: str) -> None:
        """Set the description (Markdown) that stands at the top of the run's page."""
        self.tag(mlflow_tags.MLFLOW_RUN_NOTE, text)

    def tag(self, name: str, value: str) -> None:
        """Set a tag."""
        self.client.set_tag(self.run_id, name, value)


def mlflow_port() -> int:
    """Port of the UI that `make up` starts: `$TAI_MLFLOW_PORT`, or 5000."""
    return port("TAI_MLFLOW_PORT", 5000)


def port(setting: str, usual: int) -> int:
    """A port by an environment variable; InputError if it holds none."""
    text = os.environ.get(setting) or str(usual)
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise InputError(f"{setting} {text!r}: no port; expected a number from 1 to 65535")
    return int(text)


def mlflow_ui() -> str:
    """Address of MLflow's pages: the tracking server's, or that of `make up`."""
    uri = tracking_uri()
    return uri.rstrip("/") if uri.startswith("http") else f"http://{HOST}:{mlflow_port()}"


def mlflow_page(experiment: str, *rest: str) -> str:
    """Address of an experiment's page, or of one below it, that opens as model training."""
    return "/".join((mlflow_ui(), "#", "experiments", experiment, *rest)) + AS_TRAINING


@contextmanager
def run(name: str, parent_id: str | None = None, *, source: str = "") -> Iterator[Run]:
    """A run that ends as FINISHED, KILLED if it is interrupted, or FAILED by another exception.

    Args:
        name: a later run of the same name gets a number.
        parent_id: the run that it is a part of.
        source: what to type to do the same again.

    """
    client = open_store()
    experiment = experiment_in(client)
    tags = {
        PROCESS: mark_of(),
        mlflow_tags.MLFLOW_SOURCE_TYPE: "LOCAL",
        mlflow_tags.MLFLOW_USER: _user(),
    }
    if source:
        tags[mlflow_tags.MLFLOW_SOURCE_NAME] = source
    if parent_id:
        tags[mlflow_tags.MLFLOW_PARENT_RUN_ID] = parent_id
    else:
        _end_the_dead(client, experiment)
        name = _numbered(client, experiment, name)
    run_id = client.create_run(
        experiment, tags=tags | {mlflow_tags.MLFLOW_RUN_NAME: name}
    ).info.run_id
    try:
        yield Run(client, experiment, run_id)
    except Exception:
        client.set_terminated(run_id, "FAILED")
        raise
    except BaseException:
        client.set_terminated(run_id, "KILLED")
        raise
    client.set_terminated(run_id, "FINISHED")
    if not parent_id:
        keep_store()


def _end_the_dead(client: MlflowClient, experiment: str) -> None:
    """Runs whose process was killed stand as RUNNING for ever, if nobody ends them."""
    for each in client.search_runs([experiment], "attributes.status = 'RUNNING'"):
        mark = each.data.tags.get(PROCESS)
        if mark and is_running(mark) is False:
            client.set_terminated(each.info.run_id, "KILLED")
            LOG.warning("MLflow: run %s had no process any more; ended", each.info.run_name)


def _numbered(client: MlflowClient, experiment: str, name: str) -> str:
    """The name, with a number if it is taken."""
    quoted = name.replace("'", "''")
    fitting = client.search_runs([experiment], f"attributes.run_name LIKE '{quoted}%'")
    taken = {each.info.run_name for each in fitting}
    number = next(n for n in range(1, len(taken) + 2) if _with(name, n) not in taken)
    return _with(name, number)


def _with(name: str, number: int) -> str:
    return name if number == 1 else f"{name} #{number}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user has no name
        return str(os.getuid())


def run_name(profile: Profile, settings: Mapping[str, Any] | None, method: str = "") -> str:
    """Method, profile, and what was changed in it, so that a list of runs tells them apart."""
    changed = [f"{k}={_short(v)}" for k, v in (settings or {}).items() if k != "data"]
    return " ".join([method or profile.headline_method, profile.name, *changed])[:LONGEST_NAME]


def _short(value: Any) -> str:
    """A value without blanks; a path by its last name."""
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return Path(text).name if Path(text).is_absolute() else text


HEADLINE = "mAP"
"""The first image set's merged mAP by the headline method, under this name in every run."""
TOLD = re.compile(
    "mAP|mAP_(low|high|missing_last|ignored_negative)|classes_(evaluated|all)|C?O?F1.*"
)


def metrics_of(
    profile: Profile, figures: Mapping[str, Mapping[str, float]], *, every: bool = False
) -> dict[str, float]:
    """Figures by image set as metrics `<name>/<set>`, all sets alike, the headline first.

    `mAP/voc2007` is the merged one, `mAP_global/voc2007` a branch's. AP by class is a table.

    Args:
        profile: its first image set of known labels is the headline's.
        figures: of each image set.
        every: those of single branches too.

    """
    found: dict[str, float] = {}
    first = figures.get(profile.measured[0].name, {}) if profile.measured else {}
    if "mAP/merged" in first:
        found[HEADLINE] = first["mAP/merged"]
    for images, of_set in figures.items():
        for figure, value in of_set.items():
            kind, _, which = figure.partition("/")
            name = kind if which in ("", "merged") else f"{kind}_{which}"
            is_branch = kind == "mAP"
            if TOLD.fullmatch(name) or (every and is_branch):
                found[f"{name}/{images}"] = value
    return found


def figures_in(metrics: Mapping[str, float], images: str) -> dict[str, float]:
    """A run's merged figures on an image set again, by name: `mAP`, `mAP_low`, `classes_all`."""
    tail = "/" + metric_name(f"mAP/{images}").partition("/")[2]
    return {name.removesuffix(tail): of for name, of in metrics.items() if name.endswith(tail)}


def metric_name(name: str) -> str:
    """A name that MLflow takes; class names are from outside."""
    return "/".join(re.sub(r"[^\w .-]", "_", part) for part in name.split("/", 1))
