"""The rule by which the alias `best` moves."""

from mlflow.entities.model_registry import ModelVersion, ModelVersionTag

from tasks.serving.registry import is_better


def version(images: str, score: float) -> ModelVersion:
    tags = [ModelVersionTag("images", images), ModelVersionTag("mAP/merged", repr(score))]
    return ModelVersion("tai-x", "1", 0, tags=tags)


def test_the_alias_moves_to_higher_scores_on_the_same_images_alone() -> None:
    def new(score: float, images: str = "a") -> dict[str, str]:
        return {"images": images, "mAP/merged": repr(score)}

    assert is_better(new(1.0), None)
    assert is_better(new(50.1), version("a", 50.0))
    assert not is_better(new(50.0), version("a", 50.0))
    assert not is_better(new(9.0), version("a", 50.0))
    assert not is_better(new(99.0, images="b"), version("a", 50.0))
