"""Protocols of learning from labelled images: few shots, partial labels, novel classes (PEERS 3-6).

Labels are matrices [N, C] int8 of N images: 1 shown, 0 not shown, -1 unknown.
"""

from __future__ import annotations

import difflib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from models.lazily import lazily
from tasks.errors import InputError

with lazily():
    import torch
    from torch import Tensor

SPLIT_SEED: Final = 0
"""Seed of the public split of COCO into 64 seen and 16 novel classes (LaSO, CVPR 2019)."""


@dataclass(frozen=True)
class Protocol:
    """Which images are learned from, and which of their labels are known."""

    shots: int | None = None
    """At least so many images of each class (of each novel class, if there are any); None: all."""
    known: float = 1.0
    """Probability of each label to be known."""
    novel: tuple[str, ...] = ()
    """Classes whose labels are known on the shots alone;"""
    base: bool = False
    """and whether those of the other classes are known at all, then on every image."""
    seed: int = 0

    def draw(self, labels: Tensor, classes: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Rows [K] of the images to learn from, sorted, and their labels [K, C].

        Raises:
            InputError: a class has fewer images than shots are asked for.

        """
        generator = torch.Generator().manual_seed(self.seed)
        is_drawn_for = torch.tensor([self.draws(label) for label in classes])
        rows = torch.arange(len(labels))
        if self.shots is not None:
            of_classes = labels[:, is_drawn_for]
            check_shots(of_classes, [label for label in classes if self.draws(label)], self.shots)
            rows = draw_shots(of_classes, self.shots, generator)
        known = torch.full_like(labels, -1)
        known[rows] = labels[rows].where(is_drawn_for, -1)
        if self.base:
            known[:, ~is_drawn_for] = labels[:, ~is_drawn_for]
            rows = torch.arange(len(labels))
        return rows, hide_labels(known[rows], self.known, generator)

    def draws(self, label: str) -> bool:
        """Whether shots are drawn for a class."""
        return not self.novel or label in self.novel

    def learns(self, label: str) -> bool:
        """Whether any label of a class may be known."""
        return self.base or self.draws(label)


def novel_classes(novel: int | Sequence[str], classes: Sequence[str]) -> tuple[str, ...]:
    """The novel ones of the classes, in their order: those named, or so many drawn as LaSO drew.

    With 16 of COCO's 80 classes in their official order these are LaSO's sixteen.

    Raises:
        InputError: a name is no class, or no class is left that is not novel.

    """
    if isinstance(novel, int):
        if novel >= len(classes):
            raise InputError(
                f"field 'novel': {novel} novel classes of {len(classes)}; expected fewer, so that "
                "some are left that are not novel"
            )
        drawn = random.Random(SPLIT_SEED)  # noqa: S311 (a split, no secret)
        seen = set(drawn.sample(range(len(classes)), len(classes) - novel))
        return tuple(label for number, label in enumerate(classes) if number not in seen)
    for name in novel:
        if name not in classes:
            near = difflib.get_close_matches(name, classes, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"field 'novel': {name!r} is no class of the vocabulary{hint}")
    if set(novel) == set(classes):
        raise InputError(
            "field 'novel': every class of the vocabulary is named; expected some to be left"
        )
    return tuple(label for label in classes if label in novel)


def check_shots(labels: Tensor, classes: Sequence[str], shots: int) -> None:
    """See that each class [C] has images enough.

    Raises:
        InputError: fewer than `shots` images show a class.

    """
    counts = (labels == 1).sum(dim=0).tolist()
    short = [(label, count) for label, count in zip(classes, counts, strict=True) if count < shots]
    if short:
        (label, count), others = short[0], len(short) - 1
        more = f" (and so of {others} other classes)" if others else ""
        raise InputError(
            f"class {label!r}: {count} of the {len(labels)} labelled images show it, and {shots} "
            f"shots need {shots}{more}; label more images or set labelled.shots to fewer"
        )


def draw_shots(labels: Tensor, shots: int, generator: torch.Generator) -> Tensor:
    """Rows of at least `shots` images of each class, sorted.

    Greedily from the rarest class: of each class that is still short, images that show it are
    drawn, and count for all that they show. Each class needs images enough (`check_shots`).
    """
    is_shown = labels == 1
    shuffled = torch.randperm(labels.shape[1], generator=generator)
    order = shuffled[is_shown.sum(dim=0)[shuffled].argsort(stable=True)]
    priority = torch.randperm(len(labels), generator=generator)
    is_drawn = torch.zeros(len(labels), dtype=torch.bool)
    for column in order.tolist():
        of_class = is_shown[:, column]
        missing = shots - int((of_class & is_drawn).sum())
        if missing > 0:
            left = (of_class & ~is_drawn).nonzero().flatten()
            is_drawn[left[priority[left].argsort()[:missing]]] = True
    return is_drawn.nonzero().flatten()


def hide_labels(labels: Tensor, known: float, generator: torch.Generator) -> Tensor:
    """The labels, each left known with probability `known`, shown or not alike (DualCoOp)."""
    is_hidden = torch.rand(labels.shape, generator=generator) >= known
    return labels.masked_fill(is_hidden, -1)


def listed_labels(listed: pa.Table, labels: Tensor, classes: Sequence[str]) -> pa.Table:
    """The images of a listing with other labels: `classes` are those shown, `ignored` unknown."""
    names = pa.array(classes, pa.string())
    for column, mark in (("classes", 1), ("ignored", -1)):
        is_marked = labels.numpy() == mark
        offsets = np.concatenate([[0], is_marked.sum(axis=1).cumsum()])
        found = names.take(pa.array(is_marked.nonzero()[1]))
        lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), found)
        listed = listed.set_column(listed.schema.get_field_index(column), column, lists)
    return listed
