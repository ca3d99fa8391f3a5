"""A training step against the plain way: RN50's text tower, both branches, forward and backward."""

import argparse
import json
import tempfile
from pathlib import Path

import pyarrow as pa
import torch

from benchmarks import plain
from benchmarks.captions import made_up, made_up_classes
from benchmarks.timing import alternately
from models.backbone import Backbone
from models.losses import loss_on_cosines
from models.prompts import PromptLearner
from models.tai_dpt import TaIDPT
from tasks.backbone import load_backbone
from tasks.encode import CaptionFeatures, stores_projection, write_features

KAPPA, MARGIN, SCALE = 50.0, 1.0, 4.0


def measure(backbone: Backbone, classes: int, batch: int, repeats: int) -> dict[str, float]:
    """Seconds of both ways at `classes` classes, and how far their losses and gradients are."""
    names = made_up_classes(classes)
    texts, labels = made_up(batch, names)
    learner = PromptLearner(backbone, names, generator=torch.Generator().manual_seed(0))
    objective = TaIDPT(
        learner,
        tokens_are_projected=stores_projection(backbone),
        kappa=KAPPA,
        loss=loss_on_cosines("ranking", margin=MARGIN, scale=SCALE),
    )
    ids = [str(number) for number in range(batch)]
    table = pa.table({"caption_id": ids, "text": texts, "classes": labels})
    clip = backbone.clip
    tokens = backbone.tokenize(texts)
    context = learner.context.detach().clone().requires_grad_()

    with tempfile.TemporaryDirectory() as folder:
        write_features(table, backbone, Path(folder))
        features = CaptionFeatures(Path(folder), names)
        truth = torch.from_numpy(features.labels)

        def fast_step() -> float:
            learner.context.grad = None
            loss = objective(features.batch(torch.arange(batch), backbone.device))
            loss.backward()
            return float(loss.detach())

        def plain_step() -> float:
            context.grad = None
            loss = plain.loss(
                clip,
                backbone.tokenize,
                names,
                context,
                tokens,
                truth,
                kappa=KAPPA,
                margin=MARGIN,
                scale=SCALE,
            )
            loss.backward()
            return float(loss.detach())

        loss_gap = abs(fast_step() / plain_step() - 1)
        assert context.grad is not None
        assert learner.context.grad is not None
        gap = (context.grad - learner.context.grad).norm() / context.grad.norm()
        plain_s, fast_s = alternately(plain_step, fast_step, repeats)
    return {
        "plain_s": round(plain_s, 3),
        "fast_s": round(fast_s, 4),
        "ratio": round(plain_s / fast_s, 1),
        "loss_gap": loss_gap,
        "gradient_gap": float(gap),
    }


def main() -> None:
    """Print a table and, last, one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__)
    parser.add_argument("--classes", type=int, nargs="+", default=[20, 80])
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    loaded = load_backbone("RN50-quickgelu", "", seed=0, resolution=None, device="cpu")
    print(f"batch {arguments.batch}, RN50's text tower, random weights, fp16 store")
    print(f"{'classes':>8} {'plain s':>9} {'fast s':>9} {'ratio':>7} {'gradient gap':>13}")
    found = {}
    for classes in arguments.classes:
        row = measure(loaded.backbone, classes, arguments.batch, arguments.repeats)
        found[f"C{classes}"] = row
        print(
            f"{classes:>8} {row['plain_s']:>9} {row['fast_s']:>9} {row['ratio']:>7} "
            f"{row['gradient_gap']:>13.1e}"
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
