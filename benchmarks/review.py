"""How often a review's intervals hold the truth: simulated markings of a run whose truth is known.

`python -m benchmarks.review [RUN]`, after `make demo`: 100 markings of 60 images each, by the true
labels; precision and recall of all tags, and of single classes.
"""

import json
import sys

import pyarrow.parquet as pq
import torch

from models.metrics import f1_scores
from models.survey import ratio
from tasks.images.labelled import label_matrix
from tasks.results import track
from tasks.results.outcome import found_again
from tasks.results.review import Review, card_of, draw, findings, shares, tagged_of_run
from tasks.results.runs import find_runs, logged
from tasks.results.score import SCORES

MARKINGS = 100
IMAGES = 60


def main() -> None:
    """Print coverage, mean width and the gain of moved thresholds, and one JSON line."""
    name = sys.argv[1] if len(sys.argv) > 1 else "latest"
    found = tagged_of_run(name, None)
    profile, (keys,) = logged(find_runs([name])[0], track.STAGES)
    evaluation = found_again(keys).evaluations[profile.headline_method][profile.measured[0].name]
    truth = label_matrix(pq.read_table(evaluation.file(SCORES)), found.classes)
    exact = {}
    known, shown = truth >= 0, truth == 1
    right = (found.given & shown).sum()
    exact = {
        "precision": float(right / (found.given & known).sum()),
        "recall": float(right / shown.sum()),
    }
    held = dict.fromkeys(exact, 0)
    width = dict.fromkeys(exact, 0.0)
    single, single_held, after = 0, 0, []
    before = f1_scores(found.given, truth).overall
    for seed in range(MARKINGS):
        sample = draw(found, IMAGES, seed)
        given, marks = found.given[sample.rows], truth[sample.rows]
        overall = shares(sample, given, marks)
        for share, estimate in (("precision", overall.precision), ("recall", overall.recall)):
            if estimate:
                held[share] += estimate.low <= exact[share] <= estimate.high
                width[share] += 100 * (estimate.high - estimate.low) / MARKINGS
        for c in range(len(found.classes)):
            one = ratio(sample, (given & (marks == 1))[:, c], (given & (marks >= 0))[:, c])
            if one:
                of_all = found.given[:, c] & known[:, c]
                value = float((of_all & shown[:, c]).sum() / of_all.sum())
                single += 1
                single_held += one.low <= value <= one.high
        review = Review(
            "", card_of(found, sample), [], found.scores[sample.rows].double(), given, sample
        )
        moved = findings(review, torch.arange(len(sample.rows)), marks).moved
        after.append(f1_scores(found.scores.double() > moved, truth).overall)
    result: dict[str, object] = {
        "markings": MARKINGS,
        "images": IMAGES,
        "of": len(found.files),
        "exact": {share: round(100 * value, 2) for share, value in exact.items()},
        "held": held,
        "width": {share: round(value, 1) for share, value in width.items()},
        "classes held": round(single_held / max(1, single), 3),
        "OF1 before": round(before, 2),
        "OF1 after": round(sum(after) / len(after), 2),
    }
    for field, told in result.items():
        print(f"{field:14} {told}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
