"""The stages of a profile in order, without Prefect's server; as a script: their digests."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.doors import check, check_captions
from models.method import Reads
from tasks.captions.choose import choose_captions
from tasks.captions.encode import encode_partition, stored_partitions
from tasks.captions.paired import encode_pairs
from tasks.captions.phrases import encode_phrases
from tasks.captions.sentences import encode_sentences
from tasks.corpus.ingest import ingest_captions
from tasks.corpus.sources import caption_files
from tasks.images.crops import encode_crops
from tasks.images.draw import draw_labelled
from tasks.images.encode import encode_images
from tasks.images.image_sets import list_images
from tasks.images.narrow import narrow
from tasks.images.parts import Pictures, pictures_of
from tasks.labels.compose import COMPOSED, compose_captions
from tasks.labels.label import label_captions
from tasks.labels.vocabulary import load_vocabulary, vocabulary_path
from tasks.methods.fit import Lesson, fit_method
from tasks.profile import Profile, load_profile
from tasks.results.evaluate import evaluate
from tasks.results.outcome import Outcome
from tasks.results.rate import choose_rate
from tasks.results.score import score
from tasks.results.tags import tag_images
from tasks.workspace import Stage


def choose(profile: Profile) -> tuple[list[Stage], list[Stage], Stage]:
    """A profile's corpora, their labels, and the captions chosen of them."""
    vocabulary = check_captions(profile)
    corpora = [ingest_captions.fn(*found) for found in caption_files(profile)]
    labels = [label_captions.fn(corpus, vocabulary) for corpus in corpora]
    for source in profile.sources:
        if source.form == "composed":
            made = compose_captions.fn(source, vocabulary, corpora, labels, profile.seed)
            named = source.model_copy(update={"path": source.source})
            corpora = [*corpora, ingest_captions.fn(named, made.file(COMPOSED))]
            labels = [*labels, label_captions.fn(corpora[-1], vocabulary)]
    return corpora, labels, choose_captions.fn(profile, vocabulary, corpora, labels)


def encode_all(profile: Profile, choice: Stage, reads: Reads = "tokens") -> list[Stage]:
    """Features of chosen captions by partition, as methods read them."""
    if reads == "tokens":
        parts = stored_partitions(profile, choice)
        return [encode_partition.fn(profile, choice, part) for part in parts]
    stage = {"phrases": encode_phrases, "sentences": encode_sentences}[reads]
    return [stage.fn(profile, choice, part) for part in choice.figures["store_bytes"]]


def small_pictures() -> Pictures:
    """The images of tests/small."""
    folder = Path("tests/small/images").absolute()
    return pictures_of(folder, sorted(path.name for path in folder.iterdir()))


def whole_run(profile: Profile) -> Outcome:
    """Every stage of a profile up to evaluation, by all methods of its run."""
    vocabulary = check(profile)
    corpora, labels, choice = choose(profile)
    reads_of = {profile.method(name).reads for name in profile.run if _reads(profile, name)}
    encoded_as = {reads: tuple(encode_all(profile, choice, reads)) for reads in reads_of}
    encoded = {}
    for each in profile.image_sets:
        listed = list_images.fn(profile, vocabulary, each)
        encoded[each.name] = (listed, encode_images.fn(profile, each, listed))
    shown = {
        each.name: narrow.fn(profile, vocabulary, encoded[each.name][0])
        if each.labels_known
        else encoded[each.name][0]
        for each in profile.images
    }
    fitted, evaluations, scores = {}, {}, {}
    for name in profile.run:
        lesson = Lesson()
        if profile.learns_from(name, "captions"):
            reads = profile.method(name).reads
            lesson = Lesson.of_captions(choice, reads, encoded_as[reads])
        elif profile.learns_from(name, "labelled images") and profile.labelled:
            listed, images = encoded[profile.labelled.name]
            drawn = draw_labelled.fn(profile, vocabulary, listed, images)
            views = profile.method(name).views()
            crops = encode_crops.fn(profile, profile.labelled, drawn, images, views)
            lesson = Lesson(listed=drawn, images=images, crops=crops)
        elif profile.learns_from(name, "other methods"):
            listed, images = encoded[profile.reference.name]
            lesson = Lesson(listed=listed, images=images, kappa=profile.reference.kappa)
        parts = {part.name: fitted[part.name] for part in profile.method(name).parts}
        pairs = encode_pairs.fn(profile) if profile.method(name).wants_pairs() else None
        lesson = replace(lesson, parts=parts, pairs=pairs)
        fitted[name] = fit_method.fn(profile, vocabulary, name, lesson, lambda *_: None)
        evaluations[name] = {
            each.name: evaluate.fn(
                profile,
                vocabulary,
                name,
                each,
                shown[each.name],
                encoded[each.name][1],
                fitted[name],
            )
            for each in profile.measured
        }
        if name == profile.headline_method:
            scores = {
                each.name: score.fn(
                    profile, vocabulary, name, each, *encoded[each.name], fitted[name]
                )
                for each in profile.unlabelled
            }
    return Outcome(
        corpora=tuple(corpora),
        labels=tuple(labels),
        choice=choice,
        features=encoded_as.get("tokens", ()),
        phrases=encoded_as.get("phrases", ()),
        sentences=encoded_as.get("sentences", ()),
        fitted=fitted,
        listed=shown,
        images={each.name: encoded[each.name][1] for each in profile.images},
        evaluations=evaluations,
        scores=scores,
    )


def _reads(profile: Profile, name: str) -> bool:
    return profile.learns_from(name, "captions")


def tagged(profile: Profile, outcome: Outcome) -> Outcome:
    """The outcome with its rate and tags."""
    vocabulary = load_vocabulary(vocabulary_path(profile))
    decided = choose_rate.fn(profile, vocabulary, outcome)
    tags = {e.name: tag_images.fn(profile, vocabulary, e, decided) for e in profile.images}
    return replace(decided, tags=tags)


def digests() -> dict[str, Any]:
    """Digests of all stages of a small run, and whether any was made just now."""
    # the trained method first, so that a kill in the fit stage hits a training
    settings = {"methods.tai-dpt.epochs": 2, "methods.tai-dpt.batch": 16}
    settings |= {"run": ["tai-dpt", "zero-shot"]}
    small = load_profile("tests/small/small.toml", settings)
    whole = [stage for _, stage in whole_run(small).all()]
    return {
        "digests": {f"{stage.name}/{stage.key}": stage.digest for stage in whole},
        "fresh": any(stage.fresh for stage in whole),
    }


if __name__ == "__main__":
    print(json.dumps(digests()))
