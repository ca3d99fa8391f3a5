"""A training step against the plain way: RN50's text tower, both branches, forward and backward.

The plain way takes minutes a step at 1,000 classes and more memory than the machine has, so its two
parts are timed on slices and scaled: captions to the batch, prompts to all classes (both linear;
its scores and loss are left out). One whole plain step, at the fewest classes, checks that.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import torch

from benchmarks import plain
from benchmarks.captions import encode_table, made_up, made_up_classes
from benchmarks.memory import peak_mb
from benchmarks.plain import RN50
from benchmarks.timing import medians
from models.backbone import Backbone
from models.method import Setup
from models.methods.tai_dpt import PromptSettings, PromptTuning
from tasks.backbone.devices import native_precision
from tasks.backbone.loading import create_backbone, load_backbone
from tasks.captions.features import CaptionFeatures
from tasks.labels.vocabulary import builtin_vocabulary_path, load_vocabulary

KAPPA, MARGIN, SCALE = 50.0, 1.0, 4.0
VOCABULARIES = {20: "voc2007", 80: "coco2014"}
SLICE_CAPTIONS = 64
SLICE_CLASSES = 20


def class_names(count: int) -> list[str]:
    """Names of VOC2007's or MS-COCO's classes, or made-up ones."""
    if count in VOCABULARIES:
        vocabulary = load_vocabulary(builtin_vocabulary_path(VOCABULARIES[count]))
        return list(vocabulary.prompt_names)
    return made_up_classes(count)


class FastStep:
    """The product's step on a store of made-up captions."""

    def __init__(self, backbone: Backbone, classes: int, batch: int, folder: Path) -> None:
        self.names = class_names(classes)
        self.texts, labels = made_up(batch, self.names)
        self.labels = torch.tensor([[name in found for name in self.names] for found in labels])
        settings = PromptSettings(kappa=KAPPA, margin=MARGIN, scale=SCALE)
        self._objective = PromptTuning(Setup(backbone, tuple(self.names)), settings)
        self.learner = self._objective.prompts
        ids = [str(number) for number in range(batch)]
        table = pa.table({"caption_id": ids, "text": self.texts, "classes": labels})
        folder.mkdir()
        encode_table(table, backbone, folder)
        self.features = CaptionFeatures(folder, [folder], self.names, backbone)
        self._device = backbone.device

    def __call__(self) -> torch.Tensor:
        """The loss, with the contexts' gradient in place."""
        self.learner.context.grad = None
        rows = torch.arange(len(self.features))
        draws = torch.Generator()
        loss = self._objective.loss(self.features.batch(rows, self._device), draws)
        loss.backward()
        return loss.detach()


def plain_slices(
    backbone: Backbone, names: Sequence[str], texts: Sequence[str]
) -> tuple[Callable[[], object], Callable[[], object]]:
    """The plain way's captions and prompts, each on a slice of a step."""
    clip, tokens = backbone.clip, backbone.tokenize(texts[:SLICE_CAPTIONS])
    context = torch.randn(2, 16, backbone.width, requires_grad=True)

    def prompts() -> None:
        for of_set in context:
            plain.prompt_features(
                clip, backbone.tokenize, names[:SLICE_CLASSES], of_set
            ).sum().backward()

    return lambda: plain.caption_features(clip, tokens), prompts


def whole_plain_step(backbone: Backbone, fast: FastStep) -> dict[str, float]:
    """One plain step as it stands: seconds, and how far loss and gradients are from the fast ones.

    The features that the fast step reads are rounded to fp16; the tests compare without.
    """
    context = fast.learner.context.detach().clone().requires_grad_()
    start = time.perf_counter()
    expected = plain.loss(
        backbone.clip,
        backbone.tokenize,
        fast.names,
        context,
        backbone.tokenize(fast.texts),
        fast.labels,
        kappa=KAPPA,
        margin=MARGIN,
        scale=SCALE,
    )
    expected.backward()
    seconds = time.perf_counter() - start
    loss, found = fast(), fast.learner.context.grad
    assert context.grad is not None
    assert found is not None
    gap = (context.grad - found).norm() / context.grad.norm()
    return {
        "seconds": round(seconds, 2),
        "loss_gap": abs(float(loss / expected.detach()) - 1),
        "gradient_gap": float(gap),
    }


def main() -> None:
    """Print a table and, last, one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__)
    parser.add_argument("--classes", type=int, nargs="+", default=[20, 80, 1000])
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    precision = native_precision("cpu")
    backbone = load_backbone(**RN50, precision=precision).backbone
    bare = create_backbone(**RN50).backbone
    with tempfile.TemporaryDirectory() as folder:
        steps = {
            classes: FastStep(backbone, classes, arguments.batch, Path(folder, str(classes)))
            for classes in arguments.classes
        }
        first = steps[min(steps)]
        captions, prompts = plain_slices(bare, first.names, first.texts)
        captions_s, prompts_s, *fast_s = medians(
            captions, prompts, *steps.values(), repeats=arguments.repeats
        )
        prompts_mb = peak_mb(prompts)
        fast_mb = [peak_mb(step) for step in steps.values()]
        whole = whole_plain_step(bare, first)

    print(
        f"batch {arguments.batch}, RN50's text tower, random weights, fp16 store; "
        f"{precision} against plain fp32"
    )
    print(
        f"{'classes':>8} {'plain s':>9} {'fast s':>8} {'ratio':>7} {'plain MB':>9} {'fast MB':>8}"
    )
    found: dict[str, dict[str, float]] = {}
    for classes, seconds, peak in zip(steps, fast_s, fast_mb, strict=True):
        share = classes / min(SLICE_CLASSES, len(first.names))
        plain_s = captions_s * arguments.batch / SLICE_CAPTIONS + prompts_s * share
        row = {
            "plain_s": round(plain_s, 2),
            "fast_s": round(seconds, 3),
            "ratio": round(plain_s / seconds, 1),
            "plain_peak_mb": round(prompts_mb * share, 1),
            "peak_mb": peak,
        }
        found[f"C{classes}"] = row
        print(
            f"{classes:>8} {row['plain_s']:>9} {row['fast_s']:>8} {row['ratio']:>7} "
            f"{row['plain_peak_mb']:>9} {row['peak_mb']:>8}"
        )
    print(
        f"plain: {SLICE_CAPTIONS} captions and {SLICE_CLASSES} classes, scaled; whole at "
        f"{min(steps)} classes: {whole['seconds']} s, loss within {whole['loss_gap']:.0e}, "
        f"gradients within {whole['gradient_gap']:.0e}"
    )
    print(json.dumps(found | {"whole_plain": whole}))


if __name__ == "__main__":
    main()
