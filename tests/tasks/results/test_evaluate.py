"""Scores read in small blocks give the figures of whole matrices."""

import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from models.backbone import ImageFeatures
from models.methods.tai_dpt import TaIDPT
from models.metrics import (
    average_precisions,
    bootstrap_maps,
    f1_scores,
    interval,
    mean_average_precision,
    top_decisions,
)
from tasks import arrow
from tasks.errors import InputError
from tasks.images import features
from tasks.images.image_sets import SCHEMA
from tasks.images.stored import CONTENTS, Rows, placed, shard_columns
from tasks.labels.vocabulary import Vocabulary
from tasks.results import evaluate, score

CLASSES = tuple(f"class {number}" for number in range(7))
VOCABULARY = Vocabulary("seven", CLASSES, CLASSES, pa.table({}))
ALL, LOST = 23, {3, 11, 22}
SEED = torch.manual_seed(0)
FEATURES = {
    "pooled": torch.randn(ALL - len(LOST), 6, generator=SEED).half(),
    "pooled_plain": torch.randn(ALL - len(LOST), 6, generator=SEED).half(),
    "dense": torch.randn(ALL - len(LOST), 4, 6, generator=SEED).half(),
}
PROMPTS = torch.randn(2, len(CLASSES), 6, generator=SEED)
# the last class is never shown; a third of the others' labels are ignored
MARKS = torch.randint(-1, 2, (ALL, len(CLASSES)), generator=SEED) * torch.tensor([1] * 6 + [0])


def scorer_of(prompts: torch.Tensor) -> score.Scorer:
    state = {"global": prompts[0], "local": prompts[1]}
    return lambda features: TaIDPT().score_images(state, features, 40.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Finished features in two shards, and an image set with three images more."""
    files = [f"{number}.jpg" for number in range(ALL)]
    kept = [file for number, file in enumerate(files) if number not in LOST]
    contents = []
    # the set's order is not that of the shards
    for number, rows in enumerate((slice(13, 20), slice(0, 13))):
        columns = {name: FEATURES[name][rows] for name in features.FEATURES}
        path = tmp_path / f"shard-{number:05d}.arrow"
        arrow.write_rows(path, shard_columns(kept[rows], columns))
        contents.append(placed(kept[rows], path))
    pq.write_table(pa.concat_tables(contents), tmp_path / CONTENTS)
    named = [
        [[CLASSES[c] for c in (row == mark).nonzero().flatten().tolist()] for row in MARKS]
        for mark in (1, -1)
    ]
    entries = [files, files, *named]
    pq.write_table(pa.table(entries, schema=SCHEMA), tmp_path / "entries.parquet")
    return tmp_path


def stored(folder: Path) -> features.StoredFeatures:
    contents = pq.read_table(folder / CONTENTS)
    rows = {row["content"]: row["digest"] for row in contents.to_pylist()}
    files = [f"{number}.jpg" for number in range(ALL) if number not in LOST]
    digests = pa.chunked_array([[rows[file] for file in files]])
    return features.StoredFeatures(files, Rows([folder], digests))


@pytest.mark.parametrize("at_once", [1, 50, 2**23])
def test_figures_are_those_of_whole_matrices(
    folder: Path, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "SCORES_AT_ONCE", at_once)
    monkeypatch.setattr(features, "IMAGES_PER_READ", 5)
    out = folder / "out"
    out.mkdir()
    scorer = scorer_of(PROMPTS)
    entries = folder / "entries.parquet"
    counts, metrics = evaluate.write_scores(entries, stored(folder), scorer, VOCABULARY, out)
    assert sorted(path.name for path in out.iterdir()) == [
        "ap.csv",
        "metrics.json",
        "scores.parquet",
    ]
    assert counts == {
        "images": 23,
        "images/scored": 20,
        "images/without_score": 3,
        "classes/evaluated": 6,
        "classes/without_positive": 1,
    }
    assert evaluate.classes_told(metrics) == "6 of 7"

    kept = torch.tensor([number for number in range(ALL) if number not in LOST])
    labels = MARKS[kept]
    scores = scorer_of(PROMPTS)(ImageFeatures(**FEATURES).to("cpu"))
    intervals = bootstrap_maps(scores, labels)
    written = pq.read_table(out / score.SCORES)
    rows = list(csv.DictReader((out / evaluate.AP_TABLE).open()))
    assert [int(row["positives"]) for row in rows] == (labels == 1).sum(dim=0).tolist()
    for branch, whole in scores.items():
        torch.testing.assert_close(torch.tensor(written[branch].to_pylist()), whole)
        precisions = 100 * average_precisions(whole, labels)
        for row, expected in zip(rows, precisions.tolist(), strict=True):
            assert float(row[f"AP/{branch}"] or "nan") == pytest.approx(expected, nan_ok=True)
        assert metrics[f"mAP/{branch}"] == pytest.approx(float(precisions.nanmean()))
        low_high = metrics[f"mAP_low/{branch}"], metrics[f"mAP_high/{branch}"]
        assert low_high == pytest.approx(interval(intervals[branch], metrics[f"mAP/{branch}"]))
        as_published = mean_average_precision(average_precisions(whole, labels.clamp(min=0)))
        assert metrics[f"mAP_ignored_negative/{branch}"] == pytest.approx(as_published)
        full = torch.full((ALL, len(CLASSES)), -9.0)
        full[kept] = whole
        ranked_last = mean_average_precision(average_precisions(full, MARKS))
        assert metrics[f"mAP_missing_last/{branch}"] == pytest.approx(ranked_last)
    top = f1_scores(top_decisions(scores["merged"], evaluate.TOP), labels)
    assert metrics["CF1/top3"] == pytest.approx(top.per_class)
    assert metrics["OF1/top3"] == pytest.approx(top.overall)


def test_a_set_that_shows_no_class_is_refused(folder: Path) -> None:
    other = Vocabulary("other", ("zebra",), ("zebra",), pa.table({}))
    scorer = scorer_of(PROMPTS[:, :1])
    with pytest.raises(InputError, match="none shows any class of vocabulary 'other'"):
        evaluate.write_scores(folder / "entries.parquet", stored(folder), scorer, other, folder)


def test_some_images_of_a_set_are_scored_by_their_own_features(folder: Path) -> None:
    table = pq.read_table(folder / "entries.parquet")
    chosen = [row for row in range(ALL) if row % 3]
    pq.write_table(table.take(pa.array(chosen)), folder / "some.parquet")
    out = folder / "out"
    out.mkdir()
    _, metrics = evaluate.write_scores(
        folder / "some.parquet",
        stored(folder),
        scorer_of(PROMPTS),
        VOCABULARY,
        out,
        folder / "entries.parquet",
    )
    kept = [number for number in range(ALL) if number not in LOST]
    whole = ImageFeatures(*(FEATURES[name].float() for name in features.FEATURES))
    for branch, scores in scorer_of(PROMPTS)(whole).items():
        of_all = mean_average_precision(average_precisions(scores, MARKS[kept]))
        assert metrics[f"mAP_all_images/{branch}"] == pytest.approx(of_all)
        places = [place for place, number in enumerate(kept) if number in chosen]
        labels = MARKS[[kept[place] for place in places]]
        of_some = mean_average_precision(average_precisions(scores[places], labels))
        assert metrics[f"mAP/{branch}"] == pytest.approx(of_some)
