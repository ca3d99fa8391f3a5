"""What noise is worth in CapDec, in the embedded world: python -m benchmarks.describe.

A decoder learns on captions with and without noise on their vectors, and says what scenes show,
with and without their mean moved to the captions'; scored against five captions of each scene by
the world's own grammar, which nothing learned from. Through the product's own stages; several seeds
(other captions, scenes and initial weights).
"""

import argparse
import json
import statistics
from pathlib import Path

from torch.nn import functional as F

from benchmarks.world import CAPTIONS, World
from tasks.backbone.loading import load
from tasks.corpus.references import read_references
from tasks.describe.describe import recentred, say_all, text_of
from tasks.describe.learn import learn_to_describe, read_captioner
from tasks.images.features import open_features
from tasks.profile import load_profile
from tasks.results.caption_scores import caption_scores

SEEDS = (0, 1, 2)
NOISES = (0.0, 1.0)
SCORES = ("BLEU-4", "ROUGE-L", "CIDEr-D")


def scores_of(
    world: World, noise: float, settings: dict[str, object]
) -> dict[tuple[str, bool], dict[str, float]]:
    """Scores by image set, and by whether the mean of pictures is moved to the captions'."""
    profile = load_profile(world.profile, {"describe.noise": noise, **settings})
    lesson = world.lesson(CAPTIONS[-1], "sentences")
    assert lesson.choice
    learned = learn_to_describe.fn(profile, lesson.choice, lesson.sentences, lambda *_: None)
    captioner, mean = read_captioner(profile, learned)
    found = {}
    for each in profile.images:
        _, images = world.images[each.name]
        people = read_references(Path(profile.data) / each.name / "captions.json")
        features = open_features(images)
        for centred in (False, True):
            vectors = F.normalize(features.pooled(), dim=-1)
            said = say_all(
                captioner, recentred(vectors, mean) if centred else vectors, profile.describe.beam
            )
            texts = [text_of(load(profile).backbone, one) for one in said]
            found[each.name, centred] = caption_scores(
                texts, [people[file] for file in features.files]
            )
    return found


def main() -> None:
    """Print a table and, last, one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.describe", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--noises", type=float, nargs="+", default=list(NOISES))
    parser.add_argument("--set", action="append", default=[], help="a setting of the profile")
    arguments = parser.parse_args()
    settings = {
        name: json.loads(value) for name, value in (text.split("=", 1) for text in arguments.set)
    }
    worlds = [World(seed, {}) for seed in arguments.seeds]
    rows = []
    print(f"{'images':12} {'noise':>6} {'centred':>8}  {'  '.join(SCORES)}  (CIDEr-D by seed)")
    for noise in arguments.noises:
        of_worlds = [scores_of(world, noise, settings) for world in worlds]
        for images, centred in of_worlds[0]:
            by_seed = [scores[images, centred] for scores in of_worlds]
            means = {name: statistics.fmean(each[name] for each in by_seed) for name in SCORES}
            cider = [round(each["CIDEr-D"], 2) for each in by_seed]
            rows.append({"images": images, "noise": noise, "centred": centred, "CIDEr-D": cider})
            told = "  ".join(f"{means[name]:>7.2f}" for name in SCORES)
            print(f"{images:12} {noise:>6} {centred!s:>8}  {told}  {cider}", flush=True)
    print(json.dumps({"describe": rows}))


if __name__ == "__main__":
    main()
