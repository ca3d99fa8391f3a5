"""The stages of a profile in order, without Prefect's server; as a script: their digests."""

import json

from tasks import stages
from tasks.profile import Profile, load_profile
from tasks.results.outcome import Outcome
from tasks.workspace import Stage


def choose(profile: Profile) -> tuple[list[Stage], list[Stage], Stage]:
    """A profile's corpora, their labels, and the captions chosen of them."""
    vocabulary = stages.check_captions.fn(profile)
    corpora = [stages.ingest_file.fn(*found) for found in stages.caption_files(profile)]
    labels = [stages.label_captions.fn(corpus, vocabulary) for corpus in corpora]
    return corpora, labels, stages.choose_captions.fn(profile, vocabulary, corpora, labels)


def encode_all(profile: Profile, choice: Stage) -> list[Stage]:
    """Features of chosen captions by partition."""
    parts = stages.stored_partitions(profile, choice)
    return [stages.encode_partition.fn(profile, choice, part) for part in parts]


def whole_run(profile: Profile) -> Outcome:
    """Every stage of a profile of one image set up to evaluation, by zero-shot and TaI-DPT."""
    vocabulary = stages.check.fn(profile)
    corpora, labels, choice = choose(profile)
    features = encode_all(profile, choice)
    prompts = stages.train_prompts.fn(profile, vocabulary, choice, features, lambda *_: None)
    (image_set,) = profile.images
    listed = stages.list_images.fn(profile, image_set)
    images = stages.encode_images.fn(profile, image_set, listed)
    evaluations = {
        method: {
            image_set.name: stages.evaluate.fn(
                profile, vocabulary, method, image_set, listed, images, trained
            )
        }
        for method, trained in (("zero-shot", None), ("tai-dpt", prompts))
    }
    return Outcome(
        corpora=tuple(corpora),
        labels=tuple(labels),
        choice=choice,
        features=tuple(features),
        trained={"tai-dpt": prompts},
        listed={image_set.name: listed},
        images={image_set.name: images},
        evaluations=evaluations,
    )


if __name__ == "__main__":
    small = load_profile("tests/small/small.toml", {"train.epochs": 2, "train.batch": 16})
    whole = [stage for _, stage in whole_run(small).all()]
    digests = {f"{stage.name}/{stage.folder.name}": stage.digest for stage in whole}
    print(json.dumps({"digests": digests, "fresh": any(stage.fresh for stage in whole)}))
