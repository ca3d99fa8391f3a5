"""What tuning on text alone gains in the embedded world: python -m benchmarks.world.

Three seeds (other captions, scenes and initial contexts); mAP in percent by method and branch, on
scenes in the styles that CLIP was trained on and in a style that it has never seen; what is gained
over the best method that learns from nothing; the losses; the number of captions. Everything goes
through the product's own stages, and is kept in TAI_HOME.
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import Tensor

from models.method import Method, Reads
from models.metrics import bootstrap_maps, interval
from tasks.captions.choose import choose_captions
from tasks.captions.encode import encode_partition, stored_partitions
from tasks.captions.phrases import encode_phrases
from tasks.captions.sentences import encode_sentences
from tasks.catalogue import method_class
from tasks.corpus.ingest import ingest_captions
from tasks.corpus.sources import caption_files
from tasks.images.encode import encode_images
from tasks.images.image_sets import ENTRIES, list_images
from tasks.images.labelled import label_matrix
from tasks.labels.label import label_captions
from tasks.labels.vocabulary import Vocabulary, load_vocabulary, vocabulary_path
from tasks.methods.fit import Lesson, fit_method
from tasks.profile import Profile, load_profile
from tasks.results.evaluate import evaluate
from tasks.results.outcome import BRANCHES
from tasks.results.score import scores_of
from tasks.workspace import Stage
from tasks.world.files import make_world

SEEDS = (0, 1, 2)
PROMPTS = "tai-dpt"
CAPTIONS = (250, 1000, 4000, 10_000)

Evaluations = dict[str, Stage]
"""A row's evaluations by image set."""
Rows = dict[str, Evaluations]


class World:
    """One seed's world: its image sets, encoded once, and methods fitted in it."""

    def __init__(self, seed: int, settings: Mapping[str, Any]) -> None:
        self.settings = {"world.seed": seed, "seed": seed, **settings}
        self.profile = make_world.fn(load_profile("demo", self.settings))
        self.vocabulary: Vocabulary = load_vocabulary(vocabulary_path(self.profile))
        self.images: dict[str, tuple[Stage, Stage]] = {}
        for image_set in self.profile.image_sets:
            listed = list_images.fn(self.profile, self.vocabulary, image_set)
            self.images[image_set.name] = (
                listed,
                encode_images.fn(self.profile, image_set, listed),
            )

    def evaluated(
        self, name: str, captions: int = CAPTIONS[-1], settings: Mapping[str, Any] | None = None
    ) -> Evaluations:
        """Evaluations by image set of a method that learns from what it says."""
        profile = load_profile(self.profile, settings)
        lesson = Lesson()
        if profile.learns_from(name, "captions"):
            lesson = self.lesson(captions, profile.method(name).reads)
        elif profile.learns_from(name, "labelled images"):
            listed, images = self.images["labelled"]
            lesson = Lesson(listed=listed, images=images)
        fitted = fit_method.fn(profile, self.vocabulary, name, lesson, lambda *_: None)
        return {
            each.name: evaluate.fn(
                profile, self.vocabulary, name, each, *self.images[each.name], fitted
            )
            for each in profile.images
        }

    def labels(self, images: str) -> Tensor:
        """[N, C] true labels of an image set; every scene can be read."""
        listed, _ = self.images[images]
        return label_matrix(pq.read_table(listed.file(ENTRIES)), self.vocabulary.classes)

    def lesson(self, captions: int, reads: Reads) -> Lesson:
        """The world's first captions, encoded as a method reads them."""
        few = {"world.captions": captions, "world.scenes": 1, "world.labelled": 1}
        profile: Profile = make_world.fn(load_profile("demo", {**self.settings, **few}))
        corpora, labels = [], []
        for source, path in caption_files(profile):
            corpora.append(ingest_captions.fn(source, path))
            labels.append(label_captions.fn(corpora[-1], self.vocabulary))
        choice = choose_captions.fn(profile, self.vocabulary, corpora, labels)
        ways = {"phrases": encode_phrases, "sentences": encode_sentences}
        parts = list(choice.figures["store_bytes"])
        if reads == "tokens":
            parts = stored_partitions(profile, choice)
        encoded = [ways.get(reads, encode_partition).fn(profile, choice, part) for part in parts]
        return Lesson.of_captions(choice, reads, encoded)


def rows_of(world: World) -> dict[str, Evaluations]:
    """Every row of the table for one seed."""
    rows = {name: world.evaluated(name) for name in world.profile.run}
    headline = world.profile.headline_method
    for count in CAPTIONS[:-1]:
        rows[f"{headline}, {count} captions"] = world.evaluated(headline, count)
    for loss in ("bce", "asl"):
        changed = {f"methods.{PROMPTS}.loss": loss}
        rows[f"{PROMPTS}, {loss}"] = world.evaluated(PROMPTS, settings=changed)
    return rows


def mean_map(evaluations: Sequence[Stage], branch: str = "merged") -> float:
    """Mean of the seeds' mAP, percent."""
    return statistics.fmean(stage.figures[f"mAP/{branch}"] for stage in evaluations)


def gain_of(
    worlds: Mapping[int, World], rows: Mapping[int, Rows], images: str, names: tuple[str, str]
) -> tuple[float, float, float]:
    """Mean over worlds of one row's merged mAP less another's, and its 95 % interval.

    Images are resampled 1,000 times within each world, both rows alike.
    """
    differences = []
    for seed, world in worlds.items():
        scores = {name: scores_of(rows[seed][name][images]) for name in names}
        maps = bootstrap_maps(scores, world.labels(images), seed=seed)
        differences.append(maps[names[0]] - maps[names[1]])
    ours, others = (mean_map([rows[seed][name][images] for seed in worlds]) for name in names)
    gain = ours - others
    low, high = interval(torch.stack(differences).mean(dim=0), gain)
    return gain, low, high


def best_untrained(rows: Mapping[int, Rows], images: str) -> str:
    """The method that learns from nothing with the highest mean mAP."""
    names = [name for name in next(iter(rows.values())) if method_of(name).learns_from == "nothing"]
    return max(
        names,
        key=lambda name: mean_map([of_seed[name][images] for of_seed in rows.values()]),
    )


def method_of(row: str) -> type[Method]:
    """The method of a row, whose name comes before what was changed."""
    return method_class(row.partition(",")[0])


def main() -> None:
    """Print the table and, last, one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.world", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--set", action="append", default=[], help="a setting of the profile")
    arguments = parser.parse_args()
    settings = {
        name: json.loads(value) for name, value in (text.split("=", 1) for text in arguments.set)
    }
    worlds = {seed: World(seed, settings) for seed in arguments.seeds}
    rows = {seed: rows_of(world) for seed, world in worlds.items()}
    found: dict[str, Any] = {}
    for images in ("same-style", "style-shift"):
        baseline = best_untrained(rows, images)
        print(f"\nmAP on {images}, percent; merged by seed, means of the branches,")
        print(f"and the gain over {baseline} with its 95 % interval")
        for row in next(iter(rows.values())):
            of_seeds = [of_seed[row][images] for of_seed in rows.values()]
            merged = "  ".join(f"{stage.figures['mAP/merged']:5.2f}" for stage in of_seeds)
            means = "  ".join(
                f"{branch} {mean_map(of_seeds, branch):5.2f}"
                for branch in BRANCHES
                if f"mAP/{branch}" in of_seeds[0].figures
            )
            gain = "" if row == baseline else gain_of(worlds, rows, images, (row, baseline))
            told = "{:+.2f} ({:+.2f} to {:+.2f})".format(*gain) if gain else ""
            print(f"{row:28} {merged}   {means}   {told}")
            found.setdefault(row, {})[images] = {
                "by_seed": [stage.figures["mAP/merged"] for stage in of_seeds],
                "gain": gain or None,
            }
    print(json.dumps({"world": found}))


if __name__ == "__main__":
    main()
