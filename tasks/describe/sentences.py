"""Captions as the decoder learns them: each one's own CLIP vector, and its tokens."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from models.captioner import SentenceBatch, padded
from tasks import arrow
from tasks.captions import partitions


class Sentences:
    """The captions of a finished choose stage, partition by partition, templates too.

    Args:
        choice: the stage's folder.
        features: folder of each partition's features, in order.
        starts: tokens before a caption's first word.

    """

    def __init__(self, choice: Path, features: Sequence[Path], starts: int) -> None:
        self._starts = starts
        parts = [partitions.read_tokens(path) for path in sorted(choice.glob("part-*.arrow"))]
        self._ids = torch.from_numpy(np.concatenate([ids for ids, _ in parts])).long()
        lengths = torch.cat([lengths for _, lengths in parts])
        self._firsts = lengths.cumsum(0) - lengths
        self._ends = lengths.cumsum(0)
        vectors = []
        for folder in features:
            shards = [arrow.read_rows(path) for path in sorted(folder.glob("shard-*.arrow"))]
            rows = np.concatenate([shard.rows["caption"].to_numpy() for shard in shards])
            found = [
                torch.from_numpy(arrow.matrix_of(shard.rows["global"]).copy()).view(
                    getattr(torch, shard.metadata["dtype"])
                )
                for shard in shards
            ]
            vectors.append(torch.cat(found)[torch.from_numpy(np.argsort(rows))])
        self._vectors = torch.cat(vectors)

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

    def tokens(self, row: int) -> torch.Tensor:
        """Token ids of one caption, from its first word to EOT."""
        return self._ids[int(self._firsts[row]) + self._starts : int(self._ends[row])]

    def vectors(self, rows: torch.Tensor) -> torch.Tensor:
        """[B, d] L2-normalised."""
        return F.normalize(self._vectors[rows].float(), dim=-1)

    def batch(self, rows: torch.Tensor, device: torch.device) -> SentenceBatch:
        """See `models.examples.Examples.batch`."""
        tokens = padded([self.tokens(row).tolist() for row in rows.tolist()])
        return SentenceBatch(self.vectors(rows).to(device), tokens.to(device))
