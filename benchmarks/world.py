"""What tuning on text alone gains in the embedded world: python -m benchmarks.world.

Three seeds (other captions, scenes and initial contexts); mAP in percent by method and branch, on
scenes in the styles that CLIP was trained on and in a style that it has never seen; the losses; the
number of captions. Everything goes through the product's own stages, and is kept in TAI_HOME.
"""

import argparse
import json
import statistics
from collections.abc import Mapping
from typing import Any

from tasks.captions.choose import choose_captions
from tasks.captions.encode import encode_partition, stored_partitions
from tasks.captions.phrases import encode_phrases
from tasks.corpus.ingest import ingest_captions
from tasks.corpus.sources import caption_files
from tasks.images.encode import encode_images
from tasks.images.image_sets import list_images
from tasks.labels.label import label_captions
from tasks.labels.vocabulary import Vocabulary, load_vocabulary, vocabulary_path
from tasks.methods.fit import Lesson, fit_method
from tasks.profile import Profile, load_profile
from tasks.results.evaluate import evaluate
from tasks.results.outcome import BRANCHES
from tasks.workspace import Stage
from tasks.world.files import make_world

SEEDS = (0, 1, 2)
PROMPTS = "tai-dpt"
CAPTIONS = (250, 1000, 4000, 10_000)

Maps = dict[str, dict[str, float]]
"""MAP by image set and branch."""


class World:
    """One seed's world: its image sets, encoded once, and methods fitted in it."""

    def __init__(self, seed: int, settings: Mapping[str, Any]) -> None:
        self.settings = {"world.seed": seed, "seed": seed, **settings}
        self.profile = make_world.fn(load_profile("demo", self.settings))
        self.vocabulary: Vocabulary = load_vocabulary(vocabulary_path(self.profile))
        self.images: dict[str, tuple[Stage, Stage]] = {}
        for image_set in self.profile.image_sets:
            listed = list_images.fn(self.profile, image_set)
            self.images[image_set.name] = (
                listed,
                encode_images.fn(self.profile, image_set, listed),
            )

    def maps(
        self, name: str, captions: int = CAPTIONS[-1], settings: Mapping[str, Any] | None = None
    ) -> Maps:
        """MAP on each image set of a method that learns from what it says."""
        profile = load_profile(self.profile, settings)
        lesson = Lesson()
        if profile.learns_from(name, "captions"):
            lesson = self.lesson(captions, profile.method(name).reads)
        elif profile.learns_from(name, "labelled images"):
            listed, images = self.images["labelled"]
            lesson = Lesson(listed=listed, images=images)
        fitted = fit_method.fn(profile, self.vocabulary, name, lesson, lambda *_: None)
        found: Maps = {}
        for image_set in profile.images:
            listed, images = self.images[image_set.name]
            figures = evaluate.fn(
                profile, self.vocabulary, name, image_set, listed, images, fitted
            ).figures
            found[image_set.name] = {
                branch: figures[f"mAP/{branch}"]
                for branch in BRANCHES
                if f"mAP/{branch}" in figures
            }
        return found

    def lesson(self, captions: int, reads: str) -> Lesson:
        """The world's first captions, encoded as a method reads them."""
        few = {"world.captions": captions, "world.scenes": 1, "world.labelled": 1}
        profile: Profile = make_world.fn(load_profile("demo", {**self.settings, **few}))
        corpora, labels = [], []
        for source, path in caption_files(profile):
            corpora.append(ingest_captions.fn(source, path))
            labels.append(label_captions.fn(corpora[-1], self.vocabulary))
        choice = choose_captions.fn(profile, self.vocabulary, corpora, labels)
        if reads == "phrases":
            every = list(choice.figures["store_bytes"])
            encoded = (encode_phrases.fn(profile, choice, part) for part in every)
            return Lesson(choice, phrases=tuple(encoded))
        parts = stored_partitions(profile, choice)
        features = (encode_partition.fn(profile, choice, part) for part in parts)
        return Lesson(choice, tuple(features))


def rows_of(world: World) -> dict[str, Maps]:
    """Every row of the table for one seed."""
    rows = {name: world.maps(name) for name in world.profile.run}
    headline = world.profile.headline_method
    for count in CAPTIONS[:-1]:
        rows[f"{headline}, {count} captions"] = world.maps(headline, count)
    for loss in ("bce", "asl"):
        changed = {f"methods.{PROMPTS}.loss": loss}
        rows[f"{PROMPTS}, {loss}"] = world.maps(PROMPTS, settings=changed)
    return rows


def main() -> None:
    """Print the table and, last, one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.world", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--set", action="append", default=[], help="a setting of the profile")
    arguments = parser.parse_args()
    settings = {
        name: json.loads(value) for name, value in (text.split("=", 1) for text in arguments.set)
    }
    found = {seed: rows_of(World(seed, settings)) for seed in arguments.seeds}
    for images in ("same-style", "style-shift"):
        print(f"\nmAP on {images}, percent; merged by seed, then means of the branches")
        for row in found[arguments.seeds[0]]:
            of_seeds = [found[seed][row][images] for seed in arguments.seeds]
            merged = "  ".join(f"{maps['merged']:5.2f}" for maps in of_seeds)
            means = "  ".join(
                f"{branch} {statistics.mean(maps[branch] for maps in of_seeds):5.2f}"
                for branch in BRANCHES
                if branch in of_seeds[0]
            )
            print(f"{row:28} {merged}   {means}")
    print(json.dumps({"world": {str(seed): rows for seed, rows in found.items()}}))


if __name__ == "__main__":
    main()
