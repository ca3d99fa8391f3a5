"""MLflow's model registry: what a run has trained, and which version is the best.

The rule for the alias `best`: it goes to a version if there is none yet, or if that version's
merged mAP is higher than the best's on the same images with the same labels (equal digests). A
version that was measured on anything else is registered and does not move the alias.
"""

import io
import logging
import tempfile
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, Final

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array, Object, Property
from PIL import Image

from tasks.code import ROOT
from tasks.errors import InputError
from tasks.profile import Profile
from tasks.results.outcome import Outcome
from tasks.results.track import Run, tracking_uri

LOG = logging.getLogger("tai")
BEST: Final = "best"
MODEL: Final = "model"
REQUIREMENTS: Final = (
    "duckdb", "mlflow", "numpy", "open_clip_torch", "orjson", "pandas", "pillow", "pyarrow",
    "pydantic", "safetensors", "torch", "torchvision",
)  # fmt: skip
SIGNATURE: Final = ModelSignature(
    inputs=Schema(
        [ColSpec("string", "path", required=False), ColSpec("binary", "image", required=False)]
    ),
    outputs=Schema(
        [ColSpec(Array(Object([Property("label", "string"), Property("score", "double")])), "tags")]
    ),
    params=ParamSchema([ParamSpec("top", "long", 0)]),
)


def register(run: Run, profile: Profile, outcome: Outcome, method: str) -> str:
    """Log a fitted method as a model, register it under the profile's name, move the alias.

    Returns:
        `models:/<name>/<version>`; the same state is registered once.

    """
    from tasks.results.thresholds import THRESHOLDS
    from tasks.serving.tagger import write_tagger

    name, fitted = f"tai-{profile.name}", outcome.fitted[method]
    first = profile.images[0].name
    tags = {
        "method": method,
        "state": fitted.digest,
        "images": f"{outcome.listed[first].digest[:32]}+{outcome.images[first].digest[:32]}",
        "mAP/merged": repr(outcome.evaluations[method][first].figures["mAP/merged"]),
    }
    versions = _versions(run.client, name)
    known = [
        each
        for each in versions
        if (each.tags.get("method"), each.tags.get("state")) == (method, fitted.digest)
    ]
    if not known:
        chosen = outcome.thresholds
        thresholds = chosen.file(THRESHOLDS) if chosen else None
        with tempfile.TemporaryDirectory() as folder:
            kappa, target = profile.images[0].kappa, Path(folder) / "tagger"
            write_tagger(fitted.folder, profile.method(method), kappa, thresholds, target)
            save_model(Path(folder))
            run.client.log_artifacts(run.run_id, str(Path(folder) / MODEL), MODEL)
        source = f"{run.client.get_run(run.run_id).info.artifact_uri}/{MODEL}"
        known = [run.client.create_model_version(name, source, run.run_id, tags=tags)]
    found = known[0]
    if is_better(tags, best_version(run.client, name)):
        run.client.set_registered_model_alias(name, BEST, found.version)
        LOG.info("registry: %s version %s is now the best", name, found.version)
    return f"models:/{name}/{found.version}"


def is_better(tags: dict[str, str], best: ModelVersion | None) -> bool:
    """Whether a version with these tags takes the alias, by the rule above."""
    if best is None:
        return True
    if tags["images"] != best.tags.get("images"):
        LOG.warning(
            "registry: %s version %s stays the best: it was measured on other images or labels; "
            "move the alias by hand if this run is to take its place",
            best.name,
            best.version,
        )
        return False
    return float(tags["mAP/merged"]) > float(best.tags["mAP/merged"])


def best_version(client: MlflowClient, name: str) -> ModelVersion | None:
    """The version that has the alias, None if there is none."""
    try:
        return client.get_model_version_by_alias(name, BEST)
    except MlflowException:
        return None


def tagger_folder(model: str) -> Path:
    """Folder with the fitted method of `name@alias` or `name/version`, or the folder that it names.

    Raises:
        InputError: there is no such model or folder.

    """
    name, at, alias = model.partition("@")
    registered, slash, number = model.partition("/")
    if Path(model).is_dir():
        return Path(model)
    client = MlflowClient(tracking_uri())
    try:
        if at:
            version = client.get_model_version_by_alias(name, alias)
        elif slash:
            version = client.get_model_version(registered, number)
        else:
            raise InputError(
                f"model {model!r}: expected name@alias, name/version or a folder that holds "
                "state.safetensors and card.json"
            )
        folder = mlflow.artifacts.download_artifacts(
            artifact_uri=f"{version.source}/artifacts/tagger"
        )
    except MlflowException as error:
        raise InputError(
            f"model {model!r}: neither registered nor a folder; run flows.tai first, or name a "
            f"folder with state.safetensors and card.json; {_registered(client)}"
        ) from error
    return Path(folder)


def _registered(client: MlflowClient) -> str:
    """Which models there are, to choose from."""
    found = client.search_registered_models()
    names = [
        f"{each.name}@{alias}" if alias else each.name
        for each in found
        for alias in (sorted(each.aliases) or [""])
    ]
    return f"registered are: {', '.join(names)}" if names else "none is registered yet"


def save_model(folder: Path) -> None:
    """Write an MLflow model of the tagger in `folder`/tagger to `folder`/model, with its code."""
    mlflow.pyfunc.save_model(
        folder / MODEL,
        python_model=str(ROOT / "tasks" / "serving" / "served.py"),
        artifacts={"tagger": str(folder / "tagger")},
        code_paths=[str(ROOT / package) for package in ("tasks", "models", "sql")],
        signature=SIGNATURE,
        input_example=_example(),
        pip_requirements=[f"{package}=={installed(package)}" for package in REQUIREMENTS],
    )


def _versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    """Versions of a registered model, which is made if it is not there."""
    try:
        client.get_registered_model(name)
    except MlflowException:
        client.create_registered_model(name)
    return list(client.search_model_versions(f"name = '{name}'"))


def _example() -> Any:
    """One small picture, as bytes."""
    import pandas as pd

    file = io.BytesIO()
    Image.new("RGB", (32, 32), "white").save(file, format="PNG")
    return pd.DataFrame({"image": [file.getvalue()]})
