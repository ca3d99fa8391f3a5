"""The rule by which the alias `best` moves, and what is said of a model that is not there."""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, ModelVersionTag

from tasks.errors import InputError
from tasks.results.store import tracking_uri
from tasks.serving.named import find_model
from tasks.serving.registry import is_better


def version(images: str, score: float) -> ModelVersion:
    tags = [ModelVersionTag("measured", images), ModelVersionTag("mAP/merged", repr(score))]
    return ModelVersion("tai-x", "1", 0, tags=tags)


def test_the_alias_moves_to_higher_scores_on_the_same_images_alone() -> None:
    def new(score: float, images: str = "a") -> dict[str, str]:
        return {"measured": images, "mAP/merged": repr(score)}

    assert is_better(new(1.0), None)
    assert is_better(new(50.1), version("a", 50.0))
    assert not is_better(new(50.0), version("a", 50.0))
    assert not is_better(new(9.0), version("a", 50.0))
    assert not is_better(new(99.0, images="b"), version("a", 50.0))
    assert not is_better(new(99.0) | {"weights": "random"}, version("a", 50.0))
    assert not is_better(new(99.0) | {"weights": "random"}, None)


def test_an_unknown_model_lists_those_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    with pytest.raises(InputError, match="none is registered yet"):
        find_model("tai-mine@best")
    MlflowClient(tracking_uri()).create_registered_model("tai-yours")
    with pytest.raises(InputError, match="registered are: tai-yours"):
        find_model("tai-mine@best")
