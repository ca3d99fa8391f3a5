"""A tagger with thresholds that a review has moved: the next version of its registered model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from models.lazily import lazily
from tasks.integrity import seal_folder
from tasks.methods.state import CARD, STATE
from tasks.results.runs import REVIEWED
from tasks.results.track import Run
from tasks.serving.named import Model, find_model
from tasks.serving.registry import BEST, best_version, log_tagger
from tasks.serving.tagger import BY_MARKS, RATE, THRESHOLDS, files_in
from tasks.workspace import Stage, home, write_whole

with lazily():
    from mlflow.entities.model_registry import ModelVersion


def keep_reviewed(run: Run, model: str, marks: Stage, thresholds: str) -> str:
    """Keep a model with the thresholds by class of a marks stage's file `thresholds`.

    A registered model has a new version, which takes the alias `best` from the one that was
    reviewed: scores are the same, so mAP is. The same marks make one version.

    Returns:
        What `flows.predict --model` takes: `name/version`, or a folder where the model was one.

    """
    found, file = find_model(model), marks.file(thresholds)
    if found.version is None:
        out = home() / "reviewed" / marks.key
        shutil.rmtree(out, ignore_errors=True)
        if weights := write_reviewed(found, file, out):
            shutil.copyfile(weights, out / weights.name)
        seal_folder(out, {})
        return str(out)
    name, was = found.version.name, found.version
    known = [
        each
        for each in run.client.search_model_versions(f"name = '{name}'")
        if each.tags.get(REVIEWED) == marks.key
    ]
    if not known:
        known = [_registered(run, found, was, file, marks.key)]
    best = best_version(run.client, name)
    if best and best.version == was.version:
        run.client.set_registered_model_alias(name, BEST, known[0].version)
    return f"{name}/{known[0].version}"


def write_reviewed(model: Model, thresholds: Path, out: Path) -> Path | None:
    """Write a model's tagger with moved thresholds; returns its weights, if it has a file."""
    card: dict[str, Any] = json.loads((model.folder / CARD).read_text(encoding="utf-8"))
    files = files_in(model.folder, card)
    out.mkdir(parents=True)
    shutil.copyfile(model.folder / STATE, out / STATE)
    if "model" in files:
        shutil.copyfile(files["model"], out / Path(files["model"]).name)
    by_class = json.loads(thresholds.read_text(encoding="utf-8"))
    card[THRESHOLDS] = [by_class[label] for label in card["classes"]]
    card[BY_MARKS] = thresholds.parent.name
    # what marks say goes before what captions say
    card.pop(RATE, None)
    write_whole(out / CARD, json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    return Path(files["pretrained"]) if "pretrained" in files else None


def _registered(
    run: Run, model: Model, was: ModelVersion, thresholds: Path, marks: str
) -> ModelVersion:
    logged, seal = log_tagger(
        run,
        f"reviewed-{was.name}",
        {REVIEWED: marks},
        {"reviewed": model.address},
        lambda folder: write_reviewed(model, thresholds, folder),
    )
    return run.client.create_model_version(
        was.name,
        logged.artifact_location,
        run.run_id,
        {**was.tags, **seal, REVIEWED: marks},
        description=f"{model.address} with thresholds that marks have moved",
        model_id=logged.model_id,
    )
