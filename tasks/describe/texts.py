"""Captions as the decoder learns them: each one's own CLIP vector, and its tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.lazily import lazily
from tasks.captions import partitions
from tasks.captions.sentences import SentenceVectors

with lazily():
    import torch

    from models.captioner import TextBatch, padded


class Texts:
    """The captions of a finished choose stage, partition by partition, templates too.

    Args:
        choice: the stage's folder.
        vectors: the captions' CLIP vectors.
        starts: tokens before a caption's first word.

    """

    def __init__(self, choice: Path, vectors: SentenceVectors, starts: int) -> None:
        self._starts, self._vectors = starts, vectors
        parts = [partitions.read_tokens(path) for path in sorted(choice.glob("part-*.arrow"))]
        self._ids = torch.from_numpy(np.concatenate([ids for ids, _ in parts])).long()
        lengths = torch.cat([lengths for _, lengths in parts])
        self._firsts = lengths.cumsum(0) - lengths
        self._ends = lengths.cumsum(0)

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def ids(self) -> torch.Tensor:
        """[V] all token ids that captions have after their start, sorted; EOT is the highest."""
        is_word = torch.ones(len(self._ids), dtype=torch.bool)
        for place in range(self._starts):
            is_word[self._firsts + place] = False
        found: torch.Tensor = torch.unique(self._ids[is_word])
        return found

    @property
    def longest(self) -> int:
        """Tokens of the longest caption, EOT included."""
        return int((self._ends - self._firsts).max()) - self._starts

    def batch(self, rows: torch.Tensor, device: torch.device) -> TextBatch:
        """See `models.examples.Examples.batch`."""
        first, end = self._firsts[rows] + self._starts, self._ends[rows]
        tokens = [
            self._ids[start:stop].tolist()
            for start, stop in zip(first.tolist(), end.tolist(), strict=True)
        ]
        return TextBatch(self._vectors(rows).to(device), padded(tokens).to(device))
