"""The stages of a small profile in order, without Prefect's server; prints their digests."""

import json

from tasks import stages
from tasks.profile import load_profile

if __name__ == "__main__":
    profile = load_profile("tests/small/small.toml", {"train.epochs": 2, "train.batch": 16})
    vocabulary = stages.check.fn(profile)
    found = {}
    corpora, labels = [], []
    for source, path in stages.caption_files(profile):
        corpora.append(stages.ingest_file.fn(source, path))
        labels.append(stages.label_captions.fn(corpora[-1], vocabulary))
    features = stages.encode_captions.fn(profile, vocabulary, corpora, labels)
    prompts = stages.train_prompts.fn(profile, vocabulary, features, lambda epoch, figures: None)
    (image_set,) = profile.images
    listed = stages.list_images.fn(profile, image_set)
    images = stages.encode_images.fn(profile, image_set, listed)
    scores = stages.evaluate.fn(profile, vocabulary, "tai-dpt", image_set, listed, images, prompts)
    whole = (*corpora, *labels, features, prompts, listed, images, scores)
    for stage in whole:
        found[f"{stage.name}/{stage.folder.name}"] = stage.digest
    fresh = any(stage.fresh for stage in whole)
    print(json.dumps({"digests": found, "fresh": fresh}))
