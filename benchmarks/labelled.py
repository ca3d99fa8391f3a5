"""CoOp's and DualCoOp's training step from cached features against the plain way, forward and back.

The plain way encodes the batch's images anew and pads prompts to 77 tokens. Its images are timed on
a slice of the batch and scaled; its prompts are whole. CoOp: RN50 at 224; DualCoOp: RN101 at 448.
Random weights; pixels and features are noise, which times do not depend on.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks import plain
from benchmarks.step import class_names
from benchmarks.timing import medians
from models.backbone import Backbone
from models.examples import ImageBatch
from models.losses import focused_loss, ranking_loss
from models.method import Learner, Setup
from models.methods.coop import CoOp
from models.methods.dualcoop import DualCoOp, dual_logits
from models.scoring import global_scores
from tasks import arrow
from tasks.backbone.devices import native_precision
from tasks.backbone.loading import create_backbone, load_backbone
from tasks.images.features import FEATURES, StoredFeatures
from tasks.images.image_sets import SCHEMA
from tasks.images.labelled import LabelledImages
from tasks.images.stored import CONTENTS, Rows, placed, shard_columns

STORED: Final = 256
"""Images in the store that batches are read from."""


@dataclass(frozen=True)
class Case:
    """One method on its paper's tower."""

    name: str
    tower: dict[str, Any]
    sets: int
    learner: Callable[[Setup], Learner]
    loss: Callable[[ImageBatch, torch.Tensor], torch.Tensor]
    """Of a batch and prompts [S, C, d], as the plain way has it."""


def coop_loss(batch: ImageBatch, prompts: torch.Tensor) -> torch.Tensor:
    """The ranking loss of cosines."""
    return ranking_loss(global_scores(batch.features.pooled, prompts[0]), batch.labels)


def dual_loss(batch: ImageBatch, prompts: torch.Tensor) -> torch.Tensor:
    """DualCoOp's loss."""
    scale, sharpness = torch.tensor(100.0), torch.tensor(20.0)
    logits = dual_logits(batch.features.dense, prompts[0], prompts[1], scale, sharpness)
    return 0.03 * focused_loss(logits, batch.labels)


CASES: Final = (
    Case("coop", plain.RN50 | {"resolution": 224}, 1, CoOp().learner, coop_loss),
    Case(
        "dualcoop",
        plain.RN50 | {"model": "RN101-quickgelu", "resolution": 448},
        2,
        DualCoOp().learner,
        dual_loss,
    ),
)


def store(folder: Path, names: list[str], dim: int, places: int) -> LabelledImages:
    """Noise in the images stage's format, a tenth of the labels shown."""
    draws = torch.Generator().manual_seed(0)
    shapes = ((STORED, dim), (STORED, dim), (STORED, places, dim))
    columns = {
        name: torch.randn(*shape, generator=draws).half()
        for name, shape in zip(FEATURES, shapes, strict=True)
    }
    files = [str(number) for number in range(STORED)]
    shown = torch.rand(STORED, len(names), generator=draws) < 0.1
    classes = [[names[c] for c in row.nonzero().flatten().tolist()] for row in shown]
    path = folder / "shard-00000.arrow"
    arrow.write_rows(path, shard_columns(files, columns))
    contents = placed(files, path)
    pq.write_table(contents, folder / CONTENTS)
    entries = pa.table([files, files, classes, [[]] * STORED], schema=SCHEMA)
    pq.write_table(entries, folder / "entries.parquet")
    features = StoredFeatures(files, Rows([folder], contents["digest"]))
    return LabelledImages(folder / "entries.parquet", features, names)


def ways(
    case: Case, names: list[str], batch: int, at_once: int, folder: Path
) -> tuple[Callable[[], object], Callable[[], object], Callable[[], object]]:
    """The cached step, and the plain one's images (`at_once` of them) and the rest of it."""
    precision = native_precision("cpu")
    backbone = load_backbone(**case.tower, precision=precision).backbone
    bare: Backbone = create_backbone(**case.tower).backbone
    side = case.tower["resolution"]
    examples = store(folder, names, backbone.dim, (side // 32) ** 2)
    learner = case.learner(Setup(backbone, tuple(names)))
    rows = torch.arange(batch)
    cpu = torch.device("cpu")

    def cached() -> None:
        learner.zero_grad()
        learner.loss(examples.batch(rows, cpu), torch.Generator()).backward()

    pixels = torch.randn(at_once, 3, side, side)
    found = examples.batch(rows, cpu)
    context = learner.get_parameter("prompts.context").detach().clone().requires_grad_()

    def plain_images() -> None:
        with torch.no_grad():
            bare.encode_images(pixels)

    def plain_rest() -> None:
        prompts = torch.stack(
            [plain.prompt_features(bare.clip, bare.tokenize, names, of_set) for of_set in context]
        )
        case.loss(found, prompts).backward()

    return cached, plain_images, plain_rest


def main() -> None:
    """Print a line per method and, last, one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.labelled", description=__doc__)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--images", type=int, default=4, help="images timed the plain way")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    names = class_names(arguments.classes)
    found: dict[str, dict[str, float]] = {}
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            timed = ways(case, names, arguments.batch, arguments.images, Path(folder))
            cached_s, images_s, rest_s = medians(*timed, repeats=arguments.repeats)
        plain_s = images_s * arguments.batch / arguments.images + rest_s
        found[case.name] = {
            "plain_s": round(plain_s, 2),
            "cached_s": round(cached_s, 3),
            "ratio": round(plain_s / cached_s, 1),
        }
        print(
            f"{case.name}: {arguments.classes} classes, batch {arguments.batch}: plain "
            f"{plain_s:.2f} s (images {plain_s - rest_s:.2f}, prompts {rest_s:.2f}), cached "
            f"{cached_s:.3f} s, ratio {plain_s / cached_s:.0f}"
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
