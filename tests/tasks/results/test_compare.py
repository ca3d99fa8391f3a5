"""Who wins, on made-up scores whose truth is known."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch

from models.metrics import average_precisions, bootstrap_maps, interval, mean_average_precision
from tasks.pages.comparison import page
from tasks.profile import load_profile
from tasks.results.compare import Candidate, differing, moved, verdicts
from tasks.workspace import Stage

CLASSES = ["dog", "cat", "<b>bird</b>"]

EPOCHS = "methods.tai-dpt.epochs"


def labels(images: int) -> torch.Tensor:
    return (torch.rand(images, 3, generator=torch.Generator().manual_seed(0)) < 0.3).to(torch.int8)


def candidate(
    folder: Path, name: str, signal: float, *, images: int = 300, image_set: str = "a"
) -> Candidate:
    """A run whose scores are noise and `signal` times the truth."""
    truth = labels(images)
    noise = torch.randn(images, 3, generator=torch.Generator().manual_seed(len(name)))
    scores = noise + signal * truth
    folder = folder / name
    folder.mkdir()
    shown = [[c for c, on in zip(CLASSES, row, strict=True) if on] for row in truth.tolist()]
    merged = pa.FixedSizeListArray.from_arrays(pa.array(scores.numpy().reshape(-1)), 3)
    columns = {
        "file": [f"{number}.png" for number in range(images)],
        "classes": pa.array(shown, pa.list_(pa.string())),
        "ignored": pa.array([[]] * images, pa.list_(pa.string())),
        "merged": merged,
    }
    pq.write_table(pa.table(columns), folder / "scores.parquet")
    pyarrow.csv.write_csv(pa.table({"class": CLASSES}), folder / "ap.csv")
    precisions = average_precisions(scores, truth)
    low, high = interval(
        bootstrap_maps({"x": scores}, truth)["x"], mean_average_precision(precisions)
    )
    manifest = {"inputs": {"image-set": image_set}, "outputs": {}}
    return Candidate(
        run_id=name,
        name=name,
        profile=load_profile(
            "coco-mini", {"methods.tai-dpt.epochs": len(name), "images.0.name": "set"}
        ),
        metrics={
            "mAP/set": mean_average_precision(precisions),
            "mAP_low/set": low,
            "mAP_high/set": high,
        },
        evaluations={"set": Stage(folder, manifest, fresh=False)},
        precisions={"set": dict(zip(CLASSES, (100 * precisions).tolist(), strict=True))},
    )


def test_the_better_run_wins_wherever_it_stands(tmp_path: Path) -> None:
    weak, strong = candidate(tmp_path, "weak", 0.5), candidate(tmp_path, "strong", 3.0)
    for runs in ([weak, strong], [strong, weak]):
        (verdict,) = verdicts(runs)
        assert verdict.winner.startswith("strong wins: ")
        first, second = verdict.scores
        assert first.gain is None
        assert second.gain == pytest.approx(second.value - first.value)
        assert second.gain_low is not None
        assert second.gain_high is not None
        assert second.gain_low < second.gain < second.gain_high
        assert (second.gain_low > 0) == (runs[1] is strong)


def test_equal_runs_have_no_winner(tmp_path: Path) -> None:
    runs = [candidate(tmp_path, "one", 1.0), candidate(tmp_path, "two", 1.0)]
    (verdict,) = verdicts(runs)
    assert verdict.winner.startswith("No clear winner")
    assert verdict.scores[1].gain == 0


def test_runs_on_other_labels_or_images_are_not_set_against_each_other(tmp_path: Path) -> None:
    one = candidate(tmp_path, "one", 1.0)
    relabelled = candidate(tmp_path, "relabelled", 3.0, image_set="b")
    smaller = candidate(tmp_path, "smaller", 3.0, images=200)
    elsewhere = replace(candidate(tmp_path, "elsewhere", 3.0), evaluations={})
    for other in (relabelled, smaller, elsewhere):
        (verdict,) = verdicts([one, other])
        assert verdict.scores[1].gain is None
        assert "no run wins" in verdict.winner


def test_settings_and_classes_that_differ_are_told_and_escaped(tmp_path: Path) -> None:
    runs = [candidate(tmp_path, "weak", 0.5), candidate(tmp_path, "strong", 3.0)]
    assert differing(runs) == {EPOCHS: ["4", "6"]}
    rows = moved("set", runs)
    assert [row[3] for row in rows] == sorted((row[3] for row in rows), reverse=True)
    assert {row[0] for row in rows} == set(CLASSES)
    text = page(runs, verdicts(runs))
    assert "<b>" not in text
    assert "&lt;b&gt;bird&lt;/b&gt;" in text
    assert "strong wins" in text
