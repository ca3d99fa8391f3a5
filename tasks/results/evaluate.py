"""Evaluate stage: scores of an image set by branch, AP per class and mAP."""

import csv
import json
import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import torch

from models.backbone import Backbone
from models.linear_probe import LinearProbe
from models.metrics import (
    F1,
    LARGEST_WEIGHTS,
    average_precisions,
    decision_counts,
    f1_of_counts,
    interval,
    mean_average_precision,
    resample_weights,
    top_decisions,
    weighted_average_precisions,
)
from models.prompts import class_embeddings
from models.scoring import dense_zero_shot_scores, global_scores, merged_scores
from models.tai_dpt import image_scores
from models.templates import PLAIN
from tasks.errors import InputError
from tasks.images.encode import IMAGES, feature_batches
from tasks.labels.vocabulary import Vocabulary
from tasks.workspace import Stage, write_whole

LOG = logging.getLogger("tai")
SCORES: Final = "scores.parquet"
AP_TABLE: Final = "ap.csv"
METRICS: Final = "metrics.json"
TOP: Final = 3
"""Classes that an image is tagged with where decisions are asked for."""
SCORES_AT_ONCE: Final = 2**23
RESAMPLES: Final = 1000
FEWEST_RESAMPLES: Final = 20
RESAMPLED_SCORES: Final = 2**33
Scorer = Callable[[Mapping[str, torch.Tensor]], dict[str, torch.Tensor]]


def zero_shot_scorer(backbone: Backbone, vocabulary: Vocabulary) -> Scorer:
    """Zero-shot CLIP, global and dense (METHODS 2)."""
    embeddings = class_embeddings(backbone, vocabulary.prompt_names, [PLAIN.format]).cpu()
    scale = backbone.logit_scale

    def score(features: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        of_global = global_scores(features["pooled"].float(), embeddings)
        of_local = dense_zero_shot_scores(features["dense"].float(), embeddings, scale)
        return {
            "global": of_global,
            "local": of_local,
            "merged": merged_scores(of_global, of_local),
        }

    return score


def prompt_scorer(prompts: torch.Tensor, kappa: float) -> Scorer:
    """TaI-DPT's prompts [2, C, d] (METHODS 1)."""

    def score(features: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        of_global, dense = features["pooled_plain"].float(), features["dense"].float()
        return image_scores(of_global, dense, prompts, kappa)

    return score


def global_prompt_scorer(prompts: torch.Tensor) -> Scorer:
    """TaI: the global ones of TaI-DPT's prompts [2, C, d]; each kind has a loss of its own."""

    def score(features: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        of_global = global_scores(features["pooled_plain"].float(), prompts[0])
        return {"global": of_global, "merged": of_global}

    return score


def probe_scorer(probe: LinearProbe) -> Scorer:
    """Logits of a linear probe, which looks at global and dense features at once."""

    def score(features: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"merged": probe.scores(features["pooled"].float(), features["dense"].float())}

    return score


def write_scores(
    entries: Path, images: Path, scorer: Scorer, vocabulary: Vocabulary, out: Path
) -> tuple[dict[str, int], dict[str, Any]]:
    """Score the images in `entries` by their features in `images`; write scores and metrics.

    An image that is missing or broken has no score. The mAP is that over the others, and where
    there is any, `mAP_missing_last` is the mAP with such images ranked last in every class.

    Scores lie in memory-mapped files while they are needed, and are read by blocks of images or of
    classes, so that thousands of classes and hundreds of thousands of images fit.

    Returns:
        Counts (images = images/scored + images/without_score) and metrics in percent: mAP/<branch>
        with its 95 % interval, AP/<class> (merged), CF1/top3 and OF1/top3 (merged).

    Raises:
        InputError: no image shows any class of the vocabulary.

    """
    listed, classes = pq.read_table(entries), vocabulary.classes
    _check_classes(listed, vocabulary)
    # features come in the set's order, without the images that could not be read
    is_scored = np.isin(
        listed["file"].to_numpy(), pq.read_table(images / IMAGES)["file"].to_numpy()
    )
    scored, unscored = listed.filter(pa.array(is_scored)), listed.filter(pa.array(~is_scored))
    with tempfile.TemporaryDirectory(dir=out) as folder:
        scores = _score(images, scorer, (len(classes), scored.num_rows), Path(folder))
        top = _write_rows(scored, scores, classes, out)
        precisions = {branch: _precisions(scores[branch], scored, classes) for branch in scores}
        metrics = {f"mAP/{branch}": mean_average_precision(precisions[branch]) for branch in scores}
        for branch, of_branch in scores.items():
            maps = _bootstrap(of_branch, scored, classes)
            low, high = interval(maps, metrics[f"mAP/{branch}"])
            metrics |= {f"mAP_low/{branch}": low, f"mAP_high/{branch}": high}
            if unscored.num_rows:
                full = _precisions(of_branch, scored, classes, last=unscored)
                metrics[f"mAP_missing_last/{branch}"] = mean_average_precision(full)
    metrics |= {f"CF1/top{TOP}": top.per_class, f"OF1/top{TOP}": top.overall}
    per_class = zip(classes, (100 * precisions["merged"]).tolist(), strict=True)
    metrics |= {f"AP/{label}": ap for label, ap in per_class if not math.isnan(ap)}

    positives = _positives(scored, classes)
    _write_ap_table(classes, positives, precisions, out)
    write_whole(out / METRICS, json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")
    counts = {
        "images": listed.num_rows,
        "images/scored": scored.num_rows,
        "images/without_score": unscored.num_rows,
        "classes/evaluated": sum(count > 0 for count in positives),
        "classes/without_positive": sum(count == 0 for count in positives),
    }
    return counts, metrics


def label_matrix(listed: pa.Table, classes: Sequence[str]) -> torch.Tensor:
    """[N, C] int8 of a table with `classes` and `ignored`: 1 shown, 0 not shown, -1 ignored.

    Names that are no class are left out.
    """
    labels = torch.zeros(listed.num_rows, len(classes), dtype=torch.int8)
    for mark, column in ((-1, "ignored"), (1, "classes")):
        lists = listed[column].combine_chunks()
        columns = pc.index_in(lists.flatten(), value_set=pa.array(classes, pa.string()))
        is_class = pc.is_valid(columns)
        rows = lists.value_parent_indices().filter(is_class).to_numpy()
        labels.numpy()[rows, columns.filter(is_class).to_numpy()] = mark
    return labels


def scores_of(evaluation: Stage) -> torch.Tensor:
    """[N, C] merged scores of a finished stage, a row per scored image."""
    column = pq.read_table(evaluation.file(SCORES), columns=["merged"])["merged"].combine_chunks()
    values = np.array(column.flatten().to_numpy())
    return torch.from_numpy(values.reshape(len(column), -1))


def ap_rows(evaluation: Stage) -> list[dict[str, str]]:
    """The AP table of a finished stage: a row per class, in the vocabulary's order."""
    with evaluation.file(AP_TABLE).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _check_classes(listed: pa.Table, vocabulary: Vocabulary) -> None:
    """Warn of shown classes that the vocabulary lacks; stop if it has none of them."""
    shown = set(pc.unique(listed["classes"].combine_chunks().flatten()).to_pylist())
    foreign = sorted(shown - set(vocabulary.classes))
    if foreign:
        LOG.warning("evaluate: shown, but no class of the vocabulary: %s", ", ".join(foreign[:10]))
    if len(foreign) == len(shown):
        raise InputError(
            f"no image shows any class of vocabulary '{vocabulary.name}'; expected classes named "
            f"as the annotations' classes, such as {', '.join(foreign[:5])}"
        )


def _score(
    images: Path, scorer: Scorer, shape: tuple[int, int], folder: Path
) -> dict[str, torch.Tensor]:
    """Scores [C, N] of each branch that the scorer has, in memory-mapped files under `folder`."""
    scores: dict[str, torch.Tensor] = {}
    start = 0
    for features in feature_batches(images):
        stop = start + len(features["pooled"])
        for branch, of_batch in scorer(features).items():
            if branch not in scores:
                file = np.memmap(folder / branch, np.float32, "w+", shape=shape)
                scores[branch] = torch.from_numpy(file)
            scores[branch][:, start:stop] = of_batch.T
        start = stop
    return scores


def _blocks(count: int, others: int) -> Iterator[slice]:
    """Slices of `count` rows (or classes) with some millions of scores each."""
    step = max(1, SCORES_AT_ONCE // max(1, others))
    return (slice(start, start + step) for start in range(0, count, step))


def _write_rows(
    scored: pa.Table, scores: Mapping[str, torch.Tensor], classes: Sequence[str], out: Path
) -> F1:
    """Write a row per image (what it shows, scores [C] by branch); F1 of its highest scores."""
    counts = torch.zeros(3, len(classes), dtype=torch.float64)
    kinds = [pa.field(branch, pa.list_(pa.float32(), len(classes))) for branch in scores]
    schema = pa.schema([*scored.schema, *kinds])
    with pq.ParquetWriter(out / SCORES, schema, compression="zstd") as writer:
        for block in _blocks(scored.num_rows, len(classes)):
            rows = scored.slice(block.start, block.stop - block.start)
            of_rows = {branch: of[:, block].T.contiguous() for branch, of in scores.items()}
            for branch, of_branch in of_rows.items():
                flat = pa.array(of_branch.numpy().reshape(-1))
                column = pa.FixedSizeListArray.from_arrays(flat, len(classes))
                rows = rows.append_column(branch, column)
            writer.write_table(rows.cast(schema))
            decided = top_decisions(of_rows["merged"], TOP)
            counts += decision_counts(decided, label_matrix(rows, classes))
    return f1_of_counts(counts)


def _precisions(
    scores: torch.Tensor, scored: pa.Table, classes: Sequence[str], last: pa.Table | None = None
) -> torch.Tensor:
    """AP [C] of scores [C, N]; images in `last` have none and rank behind all others."""
    listed = pa.concat_tables([scored, last]) if last else scored
    found = []
    for block in _blocks(len(classes), listed.num_rows):
        of_block = scores[block]
        missing = (len(of_block), listed.num_rows - scored.num_rows)
        ranked = torch.cat([of_block, of_block.new_full(missing, float(of_block.min()) - 1)], dim=1)
        found.append(average_precisions(ranked.T, label_matrix(listed, classes[block])))
    return torch.cat(found)


def _bootstrap(scores: torch.Tensor, scored: pa.Table, classes: Sequence[str]) -> torch.Tensor:
    """MAP [R] in percent of `models.metrics.bootstrap_maps`, by blocks of classes.

    A set of more than some millions of scores is resampled less than 1,000 times.
    """
    generator = torch.Generator().manual_seed(0)
    images = scored.num_rows
    resamples = min(RESAMPLES, max(FEWEST_RESAMPLES, RESAMPLED_SCORES // scores.numel()))
    at_once = max(1, LARGEST_WEIGHTS // images)
    maps = []
    for start in range(0, resamples, at_once):
        weights = resample_weights(images, min(at_once, resamples - start), generator)
        precisions = [
            weighted_average_precisions(
                scores[block].T, label_matrix(scored, classes[block]), weights
            )
            for block in _blocks(len(classes), images)
        ]
        maps.append(100 * torch.cat(precisions, dim=1).nanmean(dim=1))
    return torch.cat(maps)


def _positives(scored: pa.Table, classes: Sequence[str]) -> list[int]:
    """How many images show each class."""
    counted = pc.value_counts(scored["classes"].combine_chunks().flatten()).to_pylist()
    counts = {each["values"]: each["counts"] for each in counted}
    return [counts.get(label, 0) for label in classes]


def _write_ap_table(
    classes: Sequence[str],
    positives: Sequence[int],
    precisions: Mapping[str, torch.Tensor],
    out: Path,
) -> None:
    """One row per class: images that show it, and its AP in percent by branch."""
    columns: dict[str, Any] = {"class": list(classes), "positives": list(positives)}
    for branch in precisions:
        values = (100 * precisions[branch]).tolist()
        columns[f"AP/{branch}"] = [None if math.isnan(value) else value for value in values]
    pyarrow.csv.write_csv(pa.table(columns), out / AP_TABLE)
