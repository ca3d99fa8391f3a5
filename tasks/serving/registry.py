"""MLflow's model registry: what a run has trained, and which version is the best.

The rule for the alias `best`: it goes to a version if there is none yet, or if that version's
merged mAP is higher than the best's on the same images with the same labels (equal contents),
whatever CLIP looked at them. A version that was measured on anything else, or whose CLIP has random
weights, is registered and does not move the alias. Among versions that were measured on nothing,
for no label was known, the last is the best; any that was measured is better.

A version is a folder that works by itself. Where MLflow keeps it on this home's disk, the file of
CLIP's weights in it is one and the same file in all versions (a hard link).
"""

from __future__ import annotations

import io
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, Final

from PIL import Image

from models.lazily import lazily
from tasks.code import ROOT
from tasks.files import file_sha256, sync
from tasks.integrity import SEAL, DamagedError, check_bytes, check_folder, seal_folder, set_aside
from tasks.profile import Profile
from tasks.results.evaluate import ap_rows
from tasks.results.outcome import Outcome
from tasks.results.rate import RATE
from tasks.results.runs import REVIEWED
from tasks.results.tags import thresholds_of
from tasks.results.track import Run
from tasks.workspace import digest_of, home, source_sha256

with lazily():
    import mlflow
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, LoggedModelOutput, Metric
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType, Array, Object, Property
    from mlflow.utils.file_utils import local_file_uri_to_path

LOG = logging.getLogger("tai")
BEST: Final = "best"
MODEL: Final = "model"
TAGGER: Final = "artifacts/tagger"
RANDOM: Final = "random"
LOGGED: Final = "logged"
"""The tag with the id of the logged model that a version is; MLflow's own field is empty."""
SEALED: Final = "sealed"
"""The tag with the SHA-256 of a version's seal, which has those of its files."""
REQUIREMENTS: Final = (
    "duckdb", "mlflow", "numpy", "open_clip_torch", "orjson", "pandas", "pillow", "pyarrow",
    "pydantic", "safetensors", "torch", "torchvision",
)  # fmt: skip


def register(run: Run, profile: Profile, outcome: Outcome, method: str) -> str:
    """Log a fitted method as a model, register it under the profile's name, move the alias.

    Returns:
        `models:/<name>/<version>`; the same state is registered once.

    """
    name, fitted = f"tai-{profile.name}", outcome.fitted[method]
    tags = {"method": method, "state": fitted.digest} | _measured(profile, outcome, method)
    if not profile.backbone.pretrained:
        tags["weights"] = RANDOM
    versions = _versions(run.client, name)
    known = [
        each
        for each in versions
        if (each.tags.get("method"), each.tags.get("state")) == (method, fitted.digest)
        and REVIEWED not in each.tags
    ]

    def write(folder: Path) -> Path | None:
        from tasks.serving.tagger import write_tagger

        decisions = _decisions(profile, outcome)
        return write_tagger(fitted.folder, profile.method(method), decisions, folder)

    if not known:
        of = {"method": method, "profile": profile.name}
        logged, seal = log_tagger(
            run, f"{method}-{profile.name}", {"state": fitted.digest}, of, write
        )
        _measure(run, logged, profile, outcome, method)
        known = [
            run.client.create_model_version(
                name,
                logged.artifact_location,
                run.run_id,
                tags | seal,
                description=profile.description,
                model_id=logged.model_id,
            )
        ]
    found = known[0]
    try:
        check_version(found)
    except DamagedError as damage:
        LOG.warning("%s; set aside and made anew", damage)
        logged = run.client.get_logged_model(found.tags[LOGGED])
        set_aside(Path(local_file_uri_to_path(logged.artifact_location)))
        again = _log_files(run.client, logged, write)
        run.client.set_model_version_tag(name, found.version, SEALED, again)
    if is_better(tags, best_version(run.client, name)):
        run.client.set_registered_model_alias(name, BEST, found.version)
        LOG.info("registry: %s version %s is now the best", name, found.version)
    return f"models:/{name}/{found.version}"


def measured_on(outcome: Outcome, method: str, images: str) -> str:
    """SHA-256 of what a method was measured on: images, labels, classes; not how it saw them."""
    rows = ap_rows(outcome.evaluations[method][images])
    return digest_of(
        [
            outcome.listed[images].digest,
            outcome.images[images].manifest["inputs"]["images"],
            [[row["class"], row["positives"]] for row in rows],
        ]
    )


def _measured(profile: Profile, outcome: Outcome, method: str) -> dict[str, str]:
    """The headline's mAP and what it was measured on; nothing where no label is known."""
    if not profile.measured:
        return {}
    first = profile.measured[0].name
    return {
        "measured": measured_on(outcome, method, first),
        "mAP/merged": repr(outcome.evaluations[method][first].figures["mAP/merged"]),
    }


def _decisions(profile: Profile, outcome: Outcome) -> dict[str, Any]:
    """How a model of the run decides, for its card.

    The rate sets thresholds for the images at hand; those of the run's own first image set that
    has any are for fewer images than that takes.
    """
    found: dict[str, Any] = {"kappa": profile.images[0].kappa} if profile.images else {}
    if outcome.rate:
        found[RATE] = outcome.rate.figures[RATE]
    thresholds = next(filter(None, map(thresholds_of, outcome.tags.values())), None)
    return found | ({"thresholds": thresholds} if thresholds else {})


def is_better(tags: dict[str, str], best: ModelVersion | None) -> bool:
    """Whether a version with these tags takes the alias, by the rule above."""
    if tags.get("weights") == RANDOM:
        return False
    if best is None:
        return True
    if "measured" not in best.tags:
        return True
    if tags.get("measured") != best.tags["measured"]:
        LOG.warning(
            "registry: %s version %s stays the best: it was measured on other images or labels; "
            "move the alias by hand if this run is to take its place",
            best.name,
            best.version,
        )
        return False
    return float(tags["mAP/merged"]) > float(best.tags["mAP/merged"])


def check_version(version: ModelVersion) -> None:
    """Look at every byte of the tagger in a version; DamagedError if one is not as it was.

    What lies elsewhere than on this machine is that store's matter, until it is loaded.
    """
    if not str(version.source).startswith("file:") or SEALED not in version.tags:
        return
    folder = Path(local_file_uri_to_path(f"{version.source}/{TAGGER}"))
    check_bytes(folder / SEAL, version.tags[SEALED])
    check_folder(folder)


def _measure(
    run: Run, logged: LoggedModel, profile: Profile, outcome: Outcome, method: str
) -> None:
    """Say of a logged model how good it is, where labels are known."""
    if profile.measured:
        value = outcome.evaluations[method][profile.measured[0].name].figures["mAP/merged"]
        metric = Metric("mAP", value, time.time_ns() // 1_000_000, 0, logged.model_id)
        run.client.log_batch(run.run_id, metrics=[metric])


def log_tagger(
    run: Run,
    name: str,
    tags: Mapping[str, str],
    parameters: Mapping[str, str],
    write: Callable[[Path], Path | None],
) -> tuple[LoggedModel, dict[str, str]]:
    """Log a tagger as a model of the run; it, and the tags of a version by which it is checked.

    Args:
        run: whose output it is.
        name: the logged model's.
        tags: which state it holds.
        parameters: how that was made.
        write: writes the tagger to a folder, and returns the file of CLIP's weights that must come
            to lie there as well, if any.

    """
    logged = run.client.create_logged_model(
        run.experiment_id,
        name,
        run.run_id,
        dict(tags),
        dict(parameters),
        "multi-label image tagger",
    )
    seal = _log_files(run.client, logged, write)
    run.client.finalize_logged_model(logged.model_id, "READY")
    run.client.log_outputs(run.run_id, [LoggedModelOutput(logged.model_id, 0)])
    return logged, {LOGGED: logged.model_id, SEALED: seal}


def _log_files(
    client: MlflowClient, logged: LoggedModel, write: Callable[[Path], Path | None]
) -> str:
    """Log the files of a tagger into a logged model; SHA-256 of its seal."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "tagger"
        weights = write(target)
        seal_folder(target, {weights.name: source_sha256(weights)} if weights else {})
        save_model(Path(folder))
        client.log_model_artifacts(logged.model_id, str(Path(folder) / MODEL))
        if weights:
            _add_weights(client, logged, weights, Path(folder))
        return file_sha256(target / SEAL)


def _add_weights(client: MlflowClient, logged: LoggedModel, weights: Path, folder: Path) -> None:
    """Put CLIP's weights into a logged model: as a link to the home's one copy, where it can be."""
    if logged.artifact_location.startswith("file:"):
        tagger = local_file_uri_to_path(f"{logged.artifact_location}/{TAGGER}")
        place_weights(weights, Path(tagger) / weights.name)
        return
    place_weights(weights, folder / "weights" / weights.name)
    client.log_model_artifacts(logged.model_id, str(folder / "weights"), TAGGER)


def place_weights(weights: Path, place: Path) -> None:
    """A link at `place` to the home's one copy of a weights file; a copy on another disk."""
    sha256 = source_sha256(weights)
    kept = home() / "weights" / f"{sha256[:32]}{weights.suffix}"
    for folder in (kept.parent, place.parent):
        folder.mkdir(parents=True, exist_ok=True)
    if not kept.is_file() or file_sha256(kept) != sha256:
        beside = kept.with_name(f".{kept.name}.{os.getpid()}.new")
        shutil.copyfile(weights, beside)
        sync(beside)
        beside.replace(kept)
    try:
        os.link(kept, place)
    except OSError:  # another disk, or one without links
        shutil.copyfile(kept, place)


def best_version(client: MlflowClient, name: str) -> ModelVersion | None:
    """The version that has the alias, None if there is none."""
    try:
        return client.get_model_version_by_alias(name, BEST)
    except mlflow.exceptions.MlflowException:
        return None


def save_model(folder: Path) -> None:
    """Write an MLflow model of the tagger in `folder`/tagger to `folder`/model, with its code."""
    mlflow.pyfunc.save_model(
        folder / MODEL,
        python_model=str(ROOT / "tasks" / "serving" / "served.py"),
        artifacts={"tagger": str(folder / "tagger")},
        code_paths=[str(ROOT / package) for package in ("tasks", "models", "sql")],
        signature=signature(),
        input_example=_example(),
        pip_requirements=[f"{package}=={installed(package)}" for package in REQUIREMENTS],
    )


def signature() -> ModelSignature:
    """What a served model takes and gives."""
    return ModelSignature(
        # a binary column would be decoded by MLflow, and one bad row would end the whole request
        inputs=Schema(
            [ColSpec("string", "path", required=False), ColSpec(AnyType(), "image", required=False)]
        ),
        outputs=Schema(
            [
                ColSpec(
                    Array(Object([Property("label", "string"), Property("score", "double")])),
                    "tags",
                ),
                ColSpec("string", "reason", required=False),
            ]
        ),
        params=ParamSchema([ParamSpec("top", "long", 0)]),
    )


def _versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    """Versions of a registered model, which is made if it is not there."""
    try:
        client.get_registered_model(name)
    except mlflow.exceptions.MlflowException:
        client.create_registered_model(name)
    return list(client.search_model_versions(f"name = '{name}'"))


def _example() -> Any:
    """One small picture, as bytes."""
    import pandas as pd

    file = io.BytesIO()
    Image.new("RGB", (32, 32), "white").save(file, format="PNG")
    return pd.DataFrame({"image": [file.getvalue()]})
