"""The flow `prompts`: train prompts on labelled captions, evaluate them on images."""

from typing import Any

from prefect import flow

from tasks import stages
from tasks.labels.vocabulary import Vocabulary, load_vocabulary
from tasks.profile import ImageSet, Profile
from tasks.results import track
from tasks.runners import task_runner
from tasks.workspace import Stage, find_stage


@flow(name="prompts", persist_result=True, result_serializer="json")
def prompts(
    profile: Profile, corpora: list[str], labels: list[str], mlflow_run: str
) -> dict[str, Any]:
    """Choose captions and encode them, train, encode images, evaluate.

    Args:
        profile: a whole profile.
        corpora: keys of finished ingest stages.
        labels: keys of their label stages, in the same order.
        mlflow_run: id of the run under which each method's is nested.

    Returns:
        The keys of all stages: `choice`, `features` by partition, `trained` by method, `listed` and
        `images` by image set, `evaluations` by method and image set.

    """
    vocabulary = load_vocabulary(stages.vocabulary_path(profile))
    images = {each.name: _encoded(profile, each) for each in stages.image_sets_of(profile)}
    keys: dict[str, Any] = {
        "choice": None,
        "features": [],
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
                choice, features, trained = _trained_prompts(
                    profile, vocabulary, corpora, labels, run
                )
                keys["choice"] = choice.folder.name
                keys["features"] = [stage.folder.name for stage in features]
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
) -> tuple[Stage, list[Stage], Stage]:
    """Captions, their features, and the prompts tuned on them; each epoch is logged to `run`."""
    choice = stages.choose_captions(
        profile,
        vocabulary,
        [find_stage("ingest", key) for key in corpora],
        [find_stage("label", key) for key in labels],
    )
    run.dataset("captions", choice, "training")
    features = encode_captions(profile, choice)
    trained = stages.train_prompts(
        profile, vocabulary, choice, features, lambda epoch, figures: run.metrics(figures, epoch)
    )
    for name in ("prompts.safetensors", "card.json"):
        run.artifact(trained.file(name), "prompts")
    return choice, features, trained


def encode_captions(profile: Profile, choice: Stage) -> list[Stage]:
    """Features of the chosen captions by partition, by the profile's task runner."""
    # one after the other on threads: a partition keeps all cores, or the GPU, busy
    mapped = encode.with_options(task_runner=task_runner(profile.runner, threads=1))
    return mapped(profile, choice.folder.name)


@flow(name="encode", persist_result=False)
def encode(profile: Profile, choice: str) -> list[Stage]:
    """Encode a choose stage's partitions side by side; none where features are not stored."""
    chosen = find_stage("choose", choice)
    encoded = [
        stages.encode_partition.submit(profile, chosen, part)
        for part in stages.stored_partitions(profile, chosen)
    ]
    return [future.result() for future in encoded]
