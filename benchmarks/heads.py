"""Heads on captions' vectors, trained from stored features: python -m benchmarks.heads.

As many captions as MS-COCO's train2017 has images, RN50's width, generated: labels are drawn by
made-up frequencies, and a caption's vector is the sum of its classes' and noise. Class vectors come
from RN50's text tower with random weights; they are part of the time.
"""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

from benchmarks.memory import most_mb
from benchmarks.plain import RN50
from benchmarks.step import class_names
from models.examples import SentenceBatch
from models.method import Method, Setup
from tasks.backbone.loading import load_backbone
from tasks.catalogue import catalogue
from tasks.methods.trainer import train

PER_CAPTION = 2.9


@dataclass(frozen=True)
class Generated:
    """Captions' vectors in fp16, as they are stored."""

    features: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.features)

    def batch(self, rows: torch.Tensor, device: torch.device) -> SentenceBatch:
        """See `models.examples.Examples.batch`."""
        unit = F.normalize(self.features[rows].to(device).float(), dim=-1)
        return SentenceBatch(unit, self.labels[rows].to(device))


def generated(captions: int, classes: int, dim: int) -> Generated:
    """So many captions, each with a class at least."""
    draws = torch.Generator().manual_seed(0)
    shares = 1 / torch.arange(1, classes + 1)
    rates = (PER_CAPTION * shares / shares.sum()).clamp(max=0.9)
    features = torch.empty(captions, dim, dtype=torch.float16)
    labels = torch.empty(captions, classes, dtype=torch.bool)
    vectors = torch.randn(classes, dim, generator=draws)
    for rows in torch.arange(captions).split(4096):
        shown = torch.rand(len(rows), classes, generator=draws) < rates
        shown[torch.arange(len(rows)), torch.randint(classes, rows.shape, generator=draws)] = True
        found = shown.float() @ vectors + 2 * torch.randn(len(rows), dim, generator=draws)
        features[rows], labels[rows] = F.normalize(found, dim=-1).half(), shown
    return Generated(features, labels)


def seconds(method: Method, setup: Setup, captions: Generated) -> tuple[float, float]:
    """How long the class vectors take, and the training."""
    start = time.perf_counter()
    learner = method.learner(setup)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        train(
            learner,
            captions,
            torch.arange(len(captions)),
            Path(folder),
            seed=0,
            device=setup.backbone.device,
            on_epoch=lambda epoch, figures: None,
        )
    return begun - start, time.perf_counter() - begun


def main() -> None:
    """Print a row per method and, last, one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.heads", description=__doc__)
    parser.add_argument("--captions", type=int, default=118_287)
    parser.add_argument("--classes", type=int, default=80)
    arguments = parser.parse_args()
    backbone = load_backbone(**RN50).backbone
    setup = Setup(backbone, tuple(class_names(arguments.classes)))
    captions = generated(arguments.captions, arguments.classes, backbone.dim)
    print(f"{arguments.captions:,} captions, {arguments.classes:,} classes, d = {backbone.dim}")
    found: dict[str, float] = {"captions": arguments.captions, "classes": arguments.classes}
    for name, each in catalogue().items():
        if each.reads == "sentences" and each.is_trained():
            vectors, training = seconds(each(), setup, captions)
            print(f"{name:10} class vectors {vectors:6.1f} s, training {training:6.1f} s")
            found[name] = round(vectors + training, 1)
    print(f"peak memory {most_mb():,.0f} MB")
    print(json.dumps(found | {"peak_mb": round(most_mb())}))


if __name__ == "__main__":
    main()
