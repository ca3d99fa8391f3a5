"""The model that somebody names: a registered version, or a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from models.lazily import lazily
from tasks.errors import InputError
from tasks.integrity import DamagedError
from tasks.results.store import open_store, tracking_uri
from tasks.serving.registry import TAGGER, check_version

with lazily():
    import mlflow
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

TOLD: Final = 5
"""Versions of a model that a message lists."""


@dataclass(frozen=True)
class Model:
    """What tags: a registered version, or a folder that somebody named."""

    folder: Path
    """With state.safetensors and card.json."""
    version: ModelVersion | None = None

    @property
    def address(self) -> str:
        """What stays its name when an alias moves: `name/version`, or the folder."""
        version = self.version
        return f"{version.name}/{version.version}" if version else str(self.folder)


def find_model(model: str) -> Model:
    """The model `name@alias` or `name/version`, or the one in the folder that is named.

    Raises:
        InputError: there is no such model or folder; the message lists those registered.

    """
    name, at, alias = model.partition("@")
    registered, slash, number = model.partition("/")
    if Path(model).is_dir():
        return Model(Path(model).absolute())
    client = open_store()
    try:
        if at:
            version = client.get_model_version_by_alias(name, alias)
        elif slash:
            version = client.get_model_version(registered, number)
        else:
            raise InputError(
                f"model {model!r}: expected name@alias, name/version or a folder that holds "
                f"state.safetensors and card.json; {_registered(client)}"
            )
    except mlflow.exceptions.MlflowException as error:
        raise InputError(
            f"model {model!r}: neither registered nor a folder; run flows.tai first, or name a "
            f"folder with state.safetensors and card.json; {_registered(client)}"
        ) from error
    try:
        check_version(version)
        folder = mlflow.artifacts.download_artifacts(
            artifact_uri=f"{version.source}/{TAGGER}", tracking_uri=tracking_uri()
        )
    except DamagedError as damage:
        raise DamagedError(f"{damage}; flows.tai with its profile makes it anew") from damage
    except (mlflow.exceptions.MlflowException, OSError) as error:
        raise InputError(
            f"model {model!r}: registered, but its files cannot be read from {version.source}; "
            f"bring them back, or take another: {_registered(client)}"
        ) from error
    return Model(Path(folder), version)


def _registered(client: MlflowClient) -> str:
    """Which models there are, to choose from."""
    told = [_versions_told(client, each) for each in client.search_registered_models()]
    return f"registered are: {'; '.join(told)}" if told else "none is registered yet"


def _versions_told(client: MlflowClient, model: RegisteredModel) -> str:
    """`tai-demo/4, tai-demo/3 (tai-demo@best), ...`: the newest first."""
    aliases = {str(number): alias for alias, number in model.aliases.items()}
    found = client.search_model_versions(f"name = '{model.name}'")
    numbers = sorted((int(each.version) for each in found), reverse=True)
    told = [
        f"{model.name}/{number}"
        + (f" ({model.name}@{aliases[str(number)]})" if str(number) in aliases else "")
        for number in numbers
        if number in numbers[:TOLD] or str(number) in aliases
    ]
    left = len(numbers) - len(told)
    return (", ".join(told) or f"{model.name} without a version") + (
        f" and {left} older" if left else ""
    )
