"""Probe stage: a linear probe fitted to the true labels of an image set."""

from pathlib import Path
from typing import Final

import pyarrow.parquet as pq
import torch
from safetensors import safe_open
from safetensors.torch import save

from models.linear_probe import LinearProbe, fit_linear_probe
from tasks.errors import InputError
from tasks.images.encode import IMAGES, feature_batches
from tasks.labels.vocabulary import Vocabulary
from tasks.results.evaluate import label_matrix
from tasks.workspace import write_whole

PROBE: Final = "probe.safetensors"


def write_probe(entries: Path, images: Path, vocabulary: Vocabulary, out: Path) -> dict[str, int]:
    """Fit a probe to the features in `images` and the labels in `entries`.

    Returns:
        Counts: images and labels that it was fitted to.

    Raises:
        InputError: no image shows any class of the vocabulary.

    """
    listed = pq.read_table(entries)
    read = {file: row for row, file in enumerate(listed["file"].to_pylist())}
    rows = [read[file] for file in pq.read_table(images / IMAGES)["file"].to_pylist()]
    labels = label_matrix(listed, vocabulary.classes)[rows] == 1
    if not labels.any():
        raise InputError(
            f"no labelled image shows any class of vocabulary '{vocabulary.name}'; the linear "
            "probe has nothing to learn from"
        )
    batches = list(feature_batches(images))
    pooled, dense = (
        torch.cat([batch[name].float() for batch in batches]) for name in ("pooled", "dense")
    )
    probe = fit_linear_probe(pooled, dense, labels)
    write_whole(out / PROBE, save({"weight": probe.weight, "bias": probe.bias}))
    return {"images": len(labels), "labels": int(labels.sum())}


def read_probe(folder: Path) -> LinearProbe:
    """The probe of a finished stage."""
    with safe_open(folder / PROBE, framework="pt") as file:
        return LinearProbe(file.get_tensor("weight"), file.get_tensor("bias"))
