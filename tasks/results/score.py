"""Score stage: scores by branch of images of which no label is known; the table of scores."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE

from models.lazily import lazily
from models.method import Method, Scores
from tasks.images.features import StoredFeatures, files_in, open_features
from tasks.images.image_sets import ENTRIES
from tasks.methods.state import read_state
from tasks.workspace import Recipe, Result, Stage, recipe_of, run_stage

with lazily():
    import torch

    from models.backbone import ImageFeatures

if TYPE_CHECKING:
    from tasks.labels.vocabulary import Vocabulary
    from tasks.profile import Profile
    from tasks.settings import ImageSet

SCORES: Final = "scores.parquet"
SCORES_AT_ONCE: Final = 2**23
Scorer = Callable[[ImageFeatures], Scores]


@dataclass(frozen=True)
class Scoring:
    """A fitted method over one image set: what its scores depend on, and how they are made."""

    method: Method
    image_set: ImageSet
    vocabulary: Vocabulary
    listed: Stage
    images: Stage
    fitted: Stage

    def recipe(self, stage: str, module: str) -> Recipe:
        """Recipe of a stage that scores so; a method's parts (a blend's) count with it."""
        return recipe_of(
            stage,
            module,
            *self.method.modules(),
            inputs={
                "image-set": self.listed.digest,
                "images": self.images.digest,
                "vocabulary": self.vocabulary.digest,
                "fitted": self.fitted.digest,
            },
            parameters={
                "method": self.method.name,
                **self.method.described(),
                "kappa": self.image_set.kappa,
            },
        )

    def scorer(self) -> Scorer:
        """Scores by branch of some of the set's images, with the state for this very set."""
        kappa = self.image_set.kappa
        features = open_features(self.images).batches()
        state = self.method.for_set(read_state(self.fitted.folder), features, kappa)
        return lambda features: self.method.score_images(state, features, kappa)


@task(name="score", cache_policy=NO_CACHE, task_run_name="score {name} {image_set.name}")
def score(
    profile: Profile,
    vocabulary: Vocabulary,
    name: str,
    image_set: ImageSet,
    listed: Stage,
    images: Stage,
    fitted: Stage,
) -> Stage:
    """Scores of a fitted method on images whose labels are not known."""
    scoring = Scoring(profile.method(name), image_set, vocabulary, listed, images, fitted)

    def work(out: Path) -> Result:
        scored, unscored = split_rows(pq.read_table(listed.file(ENTRIES)), files_in(images))
        shape = (len(vocabulary.classes), scored.num_rows)
        with tempfile.TemporaryDirectory(dir=out) as folder:
            scores = branch_scores(open_features(images), scoring.scorer(), shape, Path(folder))
            write_rows(scored, scores, out)
        counts = {
            "images": scored.num_rows + unscored.num_rows,
            "images/scored": scored.num_rows,
            "images/without_score": unscored.num_rows,
        }
        return Result(counts, {})

    return run_stage(scoring.recipe("score", __name__), work)


def scores_of(evaluation: Stage) -> torch.Tensor:
    """[N, C] merged scores of a finished stage, a row per scored image."""
    column = pq.read_table(evaluation.file(SCORES), columns=["merged"])["merged"].combine_chunks()
    values = np.array(column.flatten().to_numpy())
    return torch.from_numpy(values.reshape(len(column), -1))


def split_rows(listed: pa.Table, files: Sequence[str]) -> tuple[pa.Table, pa.Table]:
    """Rows of the images that have features, in their order, and the others."""
    has_features = pc.is_in(listed["file"], value_set=pa.array(files, pa.string()))
    return listed.filter(has_features), listed.filter(pc.invert(has_features))


def branch_scores(
    images: StoredFeatures, scorer: Scorer, shape: tuple[int, int], folder: Path
) -> dict[str, torch.Tensor]:
    """Scores [C, N] of each branch that the scorer has, in memory-mapped files under `folder`."""
    scores: dict[str, torch.Tensor] = {}
    start = 0
    for features in images.batches():
        stop = start + len(features.pooled)
        for branch, of_batch in scorer(features).items():
            if branch not in scores:
                file = np.memmap(folder / branch, np.float32, "w+", shape=shape)
                scores[branch] = torch.from_numpy(file)
            scores[branch][:, start:stop] = of_batch.T
        start = stop
    return scores


def blocks(count: int, others: int) -> Iterator[slice]:
    """Slices of `count` rows (or classes) with some millions of scores each."""
    step = max(1, SCORES_AT_ONCE // max(1, others))
    return (slice(start, start + step) for start in range(0, count, step))


def write_rows(rows: pa.Table, scores: Mapping[str, torch.Tensor], out: Path) -> None:
    """Write scores.parquet: a row per image, with scores [C] by branch beside what it shows.

    Args:
        rows: the scored images.
        scores: [C, N] by branch.
        out: folder to write to.

    """
    classes = len(scores["merged"])
    kinds = [pa.field(branch, pa.list_(pa.float32(), classes)) for branch in scores]
    schema = pa.schema([*rows.schema, *kinds])
    with pq.ParquetWriter(out / SCORES, schema, compression="zstd") as writer:
        for block in blocks(rows.num_rows, classes):
            part = rows.slice(block.start, block.stop - block.start)
            for of_branch in scores.values():
                flat = pa.array(of_branch[:, block].T.contiguous().numpy().reshape(-1))
                column = pa.FixedSizeListArray.from_arrays(flat, classes)
                part = pa.Table.from_arrays(
                    [*part.columns, column], names=schema.names[: part.num_columns + 1]
                )
            writer.write_table(part.cast(schema))
