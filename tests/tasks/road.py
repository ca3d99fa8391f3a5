"""The stages of the demo profile in order, without Prefect's server; prints their digests."""

import json

from tasks import stages
from tasks.profile import load_profile

if __name__ == "__main__":
    profile = load_profile("demo", {"train.epochs": 2, "train.batch": 16})
    vocabulary = stages.check.fn(profile)
    found = {}
    corpora, labels = [], []
    for source, path in stages.caption_files(profile):
        corpora.append(stages.ingest_file.fn(source, path))
        labels.append(stages.label_captions.fn(corpora[-1], vocabulary))
    features = stages.encode_captions.fn(profile, vocabulary, corpora, labels)
    prompts = stages.train_prompts.fn(profile, vocabulary, features, lambda epoch, figures: None)
    (image_set,) = profile.images
    images = stages.encode_images.fn(profile, image_set)
    scores = stages.evaluate.fn(profile, vocabulary, "tai-dpt", image_set, images, prompts)
    for stage in (*corpora, *labels, features, prompts, images, scores):
        found[f"{stage.name}/{stage.folder.name}"] = stage.digest
    fresh = any(s.fresh for s in (*corpora, *labels, features, prompts, images, scores))
    print(json.dumps({"digests": found, "fresh": fresh}))
