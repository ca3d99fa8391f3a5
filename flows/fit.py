"""The flow `fit`: fit methods on captions or labelled images, measure them, or score for tags."""

from dataclasses import replace
from typing import Any

from prefect import flow
from pydantic.json_schema import SkipJsonSchema

from flows.images import work_ahead
from flows.told import in_one_sentence
from models.method import Reads
from tasks.captions.choose import choose_captions
from tasks.captions.encode import encode_partition, stored_partitions
from tasks.captions.paired import encode_pairs
from tasks.captions.phrases import encode_phrases
from tasks.captions.sentences import encode_sentences
from tasks.images.crops import encode_crops
from tasks.images.draw import draw_labelled
from tasks.images.encode import FeatureEncoder, encode_images, listed_pictures
from tasks.images.image_sets import list_images
from tasks.images.narrow import narrow
from tasks.images.parts import IMAGES_PER_PART
from tasks.labels.vocabulary import Vocabulary, load_vocabulary, vocabulary_path
from tasks.methods.fit import Lesson, fit_method
from tasks.profile import Profile
from tasks.results import track
from tasks.results.evaluate import AP_TABLE, evaluate
from tasks.results.score import score
from tasks.runners import task_runner
from tasks.workspace import Stage, find_stage

Images = dict[str, tuple[Stage, Stage]]
"""What each image set lists, and its features."""


@flow(name="fit", persist_result=True, result_serializer="json")
@in_one_sentence
def fit(profile: Profile, corpora: list[str], labels: list[str], mlflow_run: str) -> dict[str, Any]:
    """Encode images; choose captions and encode them; fit each method, evaluate or score by it.

    Args:
        profile: a whole profile.
        corpora: keys of finished ingest stages.
        labels: keys of their label stages, in the same order.
        mlflow_run: id of the run under which each method's is nested.

    Returns:
        The keys of all stages: `choice`; `features`, `phrases`, `sentences` by partition; `fitted`
        by method; `listed` and `images` by image set; `evaluations` by method and image set of
        known labels; `scores` by image set of unknown labels.

    """
    vocabulary = load_vocabulary(vocabulary_path(profile))
    images = _images(profile, vocabulary)
    evaluated = {each.name: images[each.name][0] for each in profile.unlabelled} | {
        each.name: narrow(profile, vocabulary, images[each.name][0]) for each in profile.measured
    }
    captions = _Captions(profile, vocabulary, corpora, labels)
    keys: dict[str, Any] = {
        "fitted": {},
        "listed": {name: stage.key for name, stage in evaluated.items()},
        "images": {each.name: images[each.name][1].key for each in profile.images},
        "evaluations": {name: {} for name in profile.run},
        "scores": {},
    }
    states: dict[str, Stage] = {}
    for name in profile.run:
        with track.run(f"{name} {profile.name}", mlflow_run) as run:
            run.parameters(profile.flat() | {"method": name})
            lesson = Lesson()
            if profile.learns_from(name, "captions"):
                lesson = captions.lesson(name)
            elif profile.learns_from(name, "labelled images") and profile.labelled:
                run.tag("labels", "learned from the true labels of other images, for scale")
                listed, encoded = images[profile.labelled.name]
                drawn = draw_labelled(profile, vocabulary, listed, encoded)
                views = profile.method(name).views()
                crops = encode_crops(profile, profile.labelled, drawn, encoded, views)
                lesson = Lesson(listed=drawn, images=encoded, crops=crops)
            elif profile.learns_from(name, "other methods"):
                listed, encoded = images[profile.reference.name]
                lesson = Lesson(listed=listed, images=encoded, kappa=profile.reference.kappa)
            parts = {part.name: states[part.name] for part in profile.method(name).parts}
            pairs = encode_pairs(profile) if profile.method(name).wants_pairs() else None
            lesson = replace(lesson, parts=parts, pairs=pairs)
            fitted = states[name] = _fitted(profile, vocabulary, name, lesson, run)
            keys["fitted"][name] = fitted.key
            for image_set in profile.unlabelled if name == profile.headline_method else ():
                scores = score(
                    profile, vocabulary, name, image_set, *images[image_set.name], fitted
                )
                keys["scores"][image_set.name] = scores.key
            for image_set in profile.measured:
                listed, encoded = evaluated[image_set.name], images[image_set.name][1]
                run.dataset(image_set.name, listed, "evaluation")
                found = evaluate(profile, vocabulary, name, image_set, listed, encoded, fitted)
                figures = {image_set.name: found.figures}
                run.metrics(track.metrics_of(profile, figures, every=True))
                run.artifact(found.file(AP_TABLE), image_set.name)
                keys["evaluations"][name][image_set.name] = found.key
    return keys | captions.keys()


def _images(profile: Profile, vocabulary: Vocabulary) -> Images:
    """What each image set lists, and its features."""
    listed = {each.name: list_images(profile, vocabulary, each) for each in profile.image_sets}
    large = [
        listed_pictures(profile, each, listed[each.name])
        for each in profile.image_sets
        if listed[each.name].counts["images/listed"] > IMAGES_PER_PART
    ]
    work_ahead(FeatureEncoder(profile), large, profile.runner)
    return {
        each.name: (listed[each.name], encode_images(profile, each, listed[each.name]))
        for each in profile.image_sets
    }


class _Captions:
    """The captions to learn from, chosen and encoded once, when the first method asks for them."""

    def __init__(
        self, profile: Profile, vocabulary: Vocabulary, corpora: list[str], labels: list[str]
    ) -> None:
        self._profile, self._vocabulary = profile, vocabulary
        self._corpora, self._labels = corpora, labels
        self._lessons: dict[Reads, Lesson] = {}

    def lesson(self, name: str) -> Lesson:
        """The captions as the method `name` reads them."""
        reads = self._profile.method(name).reads
        if reads not in self._lessons:
            choice = self._choice()
            encoded = encode_captions(self._profile, choice, reads)
            self._lessons[reads] = Lesson.of_captions(choice, reads, encoded)
        return self._lessons[reads]

    def _choice(self) -> Stage:
        for lesson in self._lessons.values():
            if lesson.choice:
                return lesson.choice
        return choose_captions(
            self._profile,
            self._vocabulary,
            [find_stage("ingest", key) for key in self._corpora],
            [find_stage("label", key) for key in self._labels],
        )

    def keys(self) -> dict[str, Any]:
        """Keys of the stages, where any method asked for them."""
        lessons = self._lessons.values()
        choice = next((lesson.choice for lesson in lessons if lesson.choice), None)
        return {
            "choice": choice.key if choice else None,
            "features": [stage.key for each in lessons for stage in each.features],
            "phrases": [stage.key for each in lessons for stage in each.phrases],
            "sentences": [stage.key for each in lessons for stage in each.sentences],
        }


def _fitted(
    profile: Profile, vocabulary: Vocabulary, name: str, lesson: Lesson, run: track.Run
) -> Stage:
    """A method's state; what it learned from, and each epoch, are logged to `run`."""
    is_labelled = profile.learns_from(name, "labelled images")
    images = "labelled images" if is_labelled else "images without labels"
    for context, stage in (("captions", lesson.choice), (images, lesson.listed)):
        if stage:
            run.dataset(context, stage, "training")
    fitted = fit_method(
        profile, vocabulary, name, lesson, lambda epoch, figures: run.metrics(figures, epoch)
    )
    for file in ("state.safetensors", "card.json"):
        run.artifact(fitted.file(file), "state")
    return fitted


def encode_captions(profile: Profile, choice: Stage, reads: Reads = "tokens") -> list[Stage]:
    """Features of the chosen captions by partition, by the profile's task runner."""
    # one after the other on threads: a partition keeps all cores, or the GPU, busy
    mapped = encode.with_options(task_runner=task_runner(profile.runner, threads=1))
    return mapped(profile, choice.key, reads)


@flow(name="encode", persist_result=False)
@in_one_sentence
def encode(profile: SkipJsonSchema[Profile], choice: str, reads: Reads = "tokens") -> list[Stage]:
    """Encode a choose stage's partitions side by side, as methods read captions.

    None where features of tokens are not stored.
    """
    chosen = find_stage("choose", choice)
    ways = {"tokens": encode_partition, "phrases": encode_phrases, "sentences": encode_sentences}
    parts = list(chosen.figures["store_bytes"])
    if reads == "tokens":
        parts = stored_partitions(profile, chosen)
    encoded = [ways[reads].submit(profile, chosen, part) for part in parts]
    return [future.result() for future in encoded]
