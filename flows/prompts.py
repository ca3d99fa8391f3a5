"""The flow `prompts`: train prompts on labelled captions, evaluate them on images."""

from typing import Any

from prefect import flow

from tasks import stages, track
from tasks.profile import ImageSet, Profile
from tasks.store import Stage, find_stage
from tasks.vocabulary import load_vocabulary


@flow(name="prompts", persist_result=True, result_serializer="json")
def prompts(
    profile: Profile, corpora: list[str], labels: list[str], mlflow_run: str
) -> dict[str, Any]:
    """Encode captions, train, encode images, evaluate.

    Args:
        profile: a whole profile.
        corpora: keys of finished ingest stages.
        labels: keys of their label stages, in the same order.
        mlflow_run: id of the run under which each method's is nested.

    Returns:
        The keys of all stages: `features`, `trained` by method, `listed` and `images` by image set,
        `evaluations` by method and image set.

    """
    vocabulary = load_vocabulary(stages.vocabulary_path(profile))
    images: list[tuple[ImageSet, Stage, Stage]] = []
    for image_set in profile.images:
        listed = stages.list_images(profile, image_set)
        images.append((image_set, listed, stages.encode_images(profile, image_set, listed)))
    keys: dict[str, Any] = {
        "features": None,
        "trained": {},
        "listed": {image_set.name: listed.folder.name for image_set, listed, _ in images},
        "images": {image_set.name: encoded.folder.name for image_set, _, encoded in images},
        "evaluations": {method: {} for method in profile.methods},
    }
    for method in profile.methods:
        with track.run(method, mlflow_run) as run:
            run.parameters(profile.flat() | {"method": method})
            for image_set, listed, _ in images:
                run.dataset(image_set.name, listed, "evaluation")
            trained = None
            if method == "tai-dpt":
                features = stages.encode_captions(
                    profile,
                    vocabulary,
                    [find_stage("ingest", key) for key in corpora],
                    [find_stage("label", key) for key in labels],
                )
                keys["features"] = features.folder.name
                run.dataset("captions", features, "training")
                trained = stages.train_prompts(
                    profile,
                    vocabulary,
                    features,
                    lambda epoch, figures, run=run: run.metrics(figures, epoch),
                )
                keys["trained"][method] = trained.folder.name
                for name in ("prompts.safetensors", "card.json"):
                    run.artifact(trained.file(name), "prompts")
            for image_set, listed, encoded in images:
                found = stages.evaluate(
                    profile, vocabulary, method, image_set, listed, encoded, trained
                )
                run.metrics(track.metrics_of(profile, image_set, found.figures))
                run.artifact(found.file("ap.csv"), image_set.name)
                keys["evaluations"][method][image_set.name] = found.folder.name
    return keys
