"""The flow `prompts`: train prompts on labelled captions, evaluate them on images."""

from typing import Any

from prefect import flow

from tasks import stages, track
from tasks.profile import ImageSet, Profile
from tasks.store import Stage, find_stage
from tasks.vocabulary import Vocabulary, load_vocabulary


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
    images = {each.name: _encoded(profile, each) for each in stages.image_sets_of(profile)}
    keys: dict[str, Any] = {
        "features": None,
        "trained": {},
        "listed": {each.name: images[each.name][0].folder.name for each in profile.images},
        "images": {each.name: images[each.name][1].folder.name for each in profile.images},
        "evaluations": {method: {} for method in profile.methods},
    }
    for method in profile.methods:
        with track.run(method, mlflow_run) as run:
            run.parameters(profile.flat() | {"method": method})
            trained = None
            if method == "linear-probe" and profile.labelled:
                run.tag("labels", "learned from the true labels of other images, for scale")
                listed, encoded = images[profile.labelled.name]
                run.dataset(profile.labelled.name, listed, "training")
                trained = stages.fit_probe(vocabulary, listed, encoded)
            elif method != "zero-shot":
                features, trained = _trained_prompts(profile, vocabulary, corpora, labels, run)
                keys["features"] = features.folder.name
                keys["trained"][method] = trained.folder.name
            for image_set in profile.images:
                listed, encoded = images[image_set.name]
                run.dataset(image_set.name, listed, "evaluation")
                found = stages.evaluate(
                    profile, vocabulary, method, image_set, listed, encoded, trained
                )
                run.metrics(track.metrics_of(profile, image_set, found.figures))
                run.artifact(found.file("ap.csv"), image_set.name)
                keys["evaluations"][method][image_set.name] = found.folder.name
    return keys


def _encoded(profile: Profile, image_set: ImageSet) -> tuple[Stage, Stage]:
    """What an image set lists, and its features."""
    listed = stages.list_images(profile, image_set)
    return listed, stages.encode_images(profile, image_set, listed)


def _trained_prompts(
    profile: Profile,
    vocabulary: Vocabulary,
    corpora: list[str],
    labels: list[str],
    run: track.Run,
) -> tuple[Stage, Stage]:
    """Caption features and the prompts tuned on them; each epoch is logged to `run`."""
    features = stages.encode_captions(
        profile,
        vocabulary,
        [find_stage("ingest", key) for key in corpora],
        [find_stage("label", key) for key in labels],
    )
    run.dataset("captions", features, "training")
    trained = stages.train_prompts(
        profile, vocabulary, features, lambda epoch, figures: run.metrics(figures, epoch)
    )
    for name in ("prompts.safetensors", "card.json"):
        run.artifact(trained.file(name), "prompts")
    return features, trained
