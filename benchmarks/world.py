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

from tasks import stages
from tasks.labels.vocabulary import Vocabulary, load_vocabulary
from tasks.profile import Profile, load_profile
from tasks.results.outcome import BRANCHES
from tasks.workspace import Stage

SEEDS = (0, 1, 2)
CAPTIONS = (250, 1000, 4000, 10_000)
LOSSES = ("ranking", "bce", "asl")

Maps = dict[str, dict[str, float]]
"""MAP by image set and branch."""


class World:
    """One seed's world: its image sets, encoded once, and prompts tuned on its captions."""

    def __init__(self, seed: int, settings: Mapping[str, Any]) -> None:
        self.settings = {"world.seed": seed, "seed": seed, **settings}
        self.profile = stages.make_world.fn(load_profile("demo", self.settings))
        self.vocabulary: Vocabulary = load_vocabulary(stages.vocabulary_path(self.profile))
        self.images: dict[str, tuple[Stage, Stage]] = {}
        for image_set in stages.image_sets_of(self.profile):
            listed = stages.list_images.fn(self.profile, image_set)
            encoded = stages.encode_images.fn(self.profile, image_set, listed)
            self.images[image_set.name] = (listed, encoded)

    def maps(self, method: str, trained: Stage | None = None) -> Maps:
        """MAP of a method on each image set."""
        found: Maps = {}
        for image_set in self.profile.images:
            listed, encoded = self.images[image_set.name]
            figures = stages.evaluate.fn(
                self.profile, self.vocabulary, method, image_set, listed, encoded, trained
            ).figures
            found[image_set.name] = {
                branch: figures[f"mAP/{branch}"]
                for branch in BRANCHES
                if f"mAP/{branch}" in figures
            }
        return found

    def prompts(self, captions: int, settings: Mapping[str, Any] | None = None) -> Stage:
        """Prompts tuned on the world's first captions."""
        few = {"world.captions": captions, "world.scenes": 1, "world.labelled": 1}
        profile: Profile = stages.make_world.fn(
            load_profile("demo", {**self.settings, **few, **(settings or {})})
        )
        corpora, labels = [], []
        for source, path in stages.caption_files(profile):
            corpora.append(stages.ingest_file.fn(source, path))
            labels.append(stages.label_captions.fn(corpora[-1], self.vocabulary))
        choice = stages.choose_captions.fn(profile, self.vocabulary, corpora, labels)
        features = [
            stages.encode_partition.fn(profile, choice, part)
            for part in stages.stored_partitions(profile, choice)
        ]
        return stages.train_prompts.fn(profile, self.vocabulary, choice, features, lambda *_: None)

    def probe(self) -> Stage:
        """The linear probe on true labels."""
        return stages.fit_probe.fn(self.vocabulary, *self.images["labelled"])


def rows_of(world: World) -> dict[str, Maps]:
    """Every row of the table for one seed."""
    rows = {"zero-shot": world.maps("zero-shot")}
    for count in CAPTIONS:
        trained = world.prompts(count)
        rows[f"tai-dpt, {count} captions"] = world.maps("tai-dpt", trained)
    rows["tai"] = world.maps("tai", trained)
    for loss in LOSSES:
        name = "tai-dpt" if loss == "ranking" else f"tai-dpt, {loss}"
        trained = world.prompts(CAPTIONS[-1], {"train.loss": loss})
        rows[name] = world.maps("tai-dpt", trained)
    rows["linear-probe (true labels)"] = world.maps("linear-probe", world.probe())
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
