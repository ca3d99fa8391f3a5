"""Finished runs of `tai` in MLflow: found by what people call them, and what was logged of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from models.lazily import lazily
from tasks.errors import InputError
from tasks.profile import Profile, load_profile
from tasks.results import track
from tasks.results.store import experiment_in, open_store

with lazily():
    import mlflow
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun
    from mlflow.utils import mlflow_tags

LISTED: Final = 10
REVIEWED: Final = "reviewed"
"""Tag of runs that hold what a person's marks say of something else."""


def find_runs(names: Sequence[str]) -> list[MlflowRun]:
    """Finished runs by id, start of an id, name, `latest`, or `latest~1` (the one before).

    Raises:
        InputError: a name fits no run or several; the message lists the latest runs.

    """
    client = open_store()
    found = client.search_runs([experiment_in(client)])
    whole = [run for run in found if run.info.status == "FINISHED" and _is_of_tai(run)]
    return [_find(whole, name) for name in names]


def logged(run: MlflowRun, *names: str) -> tuple[Profile, list[Any]]:
    """The profile of a run, and the contents of JSON files that it logged.

    Raises:
        InputError: they cannot be read.

    """
    client = open_store()
    try:
        profile = load_profile(_json(client, run, "config.json"))
        return profile, [_json(client, run, name) for name in names]
    except (mlflow.exceptions.MlflowException, OSError, KeyError, ValueError) as error:
        raise InputError(f"run {run.info.run_id[:8]}: its files cannot be read: {error}") from error


def _is_of_tai(run: MlflowRun) -> bool:
    """Not one method's part of a run, nor a review, a refresh or a study."""
    tags = set(run.data.tags)
    return "model" in tags and not {mlflow_tags.MLFLOW_PARENT_RUN_ID, REVIEWED} & tags


def _find(runs: Sequence[MlflowRun], name: str) -> MlflowRun:
    head, _, back = name.partition("~")
    if head == "latest" and (back or "0").isdigit() and int(back or 0) < len(runs):
        return runs[int(back or 0)]
    fitting = [run for run in runs if name == run.info.run_name or run.info.run_id.startswith(name)]
    if len(fitting) == 1:
        return fitting[0]
    latest = "".join(
        f"\n  {run.info.run_id[:8]}  {run.info.run_name}  {_map_told(run.data.metrics)}"
        for run in runs[:LISTED]
    )
    many = "several runs" if fitting else "no finished run"
    raise InputError(
        f"run {name!r} fits {many}; expected an id, its first characters, a name, latest or "
        f"latest~1; the latest runs are:{latest or ' none'}"
    )


def _map_told(metrics: Mapping[str, float]) -> str:
    return f"mAP {metrics[track.HEADLINE]:.2f}" if track.HEADLINE in metrics else "not measured"


def _json(client: MlflowClient, run: MlflowRun, name: str) -> Any:
    path = client.download_artifacts(run.info.run_id, name)
    return json.loads(Path(path).read_text(encoding="utf-8"))
