"""Sentences stage: captions as one vector each, for methods that look at nothing else.

A file with a row per caption of a partition, in its order:

    sentences.arrow    global fixed[d]: EOT, projected, L2-normalised, fp16, or bf16 as int16 bits

They are the `global` features of the encode stage, to the same bits, and are taken from there if it
has run; a caption takes 2 kB instead of 16, and thousands of steps read them in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from prefect import task
from prefect.cache_policies import NO_CACHE

from models.lazily import lazily
from tasks import arrow
from tasks.arrow import Ids, ranges
from tasks.backbone.devices import device_of
from tasks.backbone.loading import identity_of, load
from tasks.captions import partitions
from tasks.captions.encode import CAPTIONS_PER_SHARD, StoreDtype, encode_sorted, encoded_partition
from tasks.captions.features import Labels
from tasks.progress import Progress
from tasks.workspace import Result, Stage, recipe_of, run_stage

with lazily():
    import torch
    from torch.nn import functional as F

    from models.examples import SentenceBatch

if TYPE_CHECKING:
    from models.backbone import Backbone
    from tasks.profile import Profile

TEXTS_AT_ONCE: Final = 256
TEXTS_SORTED: Final = 8192
"""Texts that are sorted by length together."""
SENTENCES: Final = "sentences.arrow"


@task(name="sentences", cache_policy=NO_CACHE, task_run_name="sentences {part}")
def encode_sentences(profile: Profile, choice: Stage, part: str) -> Stage:
    """A vector per caption of one partition of the chosen captions."""
    parts = list(choice.figures["store_bytes"])
    tokens = partitions.tokens_file(choice.place, part).name

    def work(out: Path) -> Result:
        dtype = profile.captions.dtype
        encoded = encoded_partition(profile, choice, part)
        if encoded:
            shards = sorted(encoded.folder.glob("shard-*.arrow"))
            features = _of_shards(shards, dtype)
        else:
            name = f"sentences, part {parts.index(part) + 1} of {len(parts)}"
            features = _encoded(choice.file(tokens), load(profile).backbone, dtype, name)
        arrow.write_rows(out / SENTENCES, {"global": arrow.vectors(features)}, dtype=dtype)
        return Result({"captions": len(features)}, {})

    recipe = recipe_of(
        "sentences",
        __name__,
        inputs={"tokens": choice.manifest["outputs"][tokens], "backbone": identity_of(profile)},
        parameters={"dtype": profile.captions.dtype, "device": device_of(profile)},
    )
    return run_stage(recipe, work)


def _of_shards(shards: Sequence[Path], dtype: StoreDtype) -> torch.Tensor:
    """[B, d] global features of a partition's encoded shards, in the captions' order."""
    columns = [arrow.read_rows(path).rows for path in shards]
    rows = np.concatenate([each["caption"].to_numpy() for each in columns])
    features = np.concatenate([arrow.matrix_of(each["global"]) for each in columns])
    found = np.empty_like(features)
    found[rows] = features
    return torch.from_numpy(found).view(getattr(torch, dtype))


def sentence_vectors(
    ids: Ids,
    lengths: torch.Tensor,
    backbone: Backbone,
    dtype: StoreDtype,
    progress: Progress | None = None,
) -> torch.Tensor:
    """[B, d] of captions end to end in `ids`, shortest first: by any text tower, L2-normalised."""
    if backbone.is_causal:
        return encode_sorted(ids, lengths, backbone, dtype, progress).global_
    found = []
    start = 0
    for of_batch in lengths.split(TEXTS_AT_ONCE):
        stop = start + int(of_batch.sum())
        tokens = torch.from_numpy(ids[start:stop]).long().split(of_batch.tolist())
        padded = torch.nn.utils.rnn.pad_sequence(
            tokens, batch_first=True, padding_value=backbone.padding
        )
        start = stop
        with torch.no_grad():
            vectors = backbone.encode_sentences(padded.to(backbone.device))
        found.append(F.normalize(vectors.float(), dim=-1).to(getattr(torch, dtype)).cpu())
        if progress:
            progress.add(len(of_batch))
    return torch.cat(found)


def vectors_of(
    texts: Sequence[str], backbone: Backbone, progress: Progress | None = None
) -> torch.Tensor:
    """[N, d] fp16 vectors of texts, L2-normalised, in their order."""
    ids, lengths = _tokens(texts, backbone)
    order = torch.argsort(lengths, stable=True)
    starts = lengths.cumsum(0) - lengths
    found = torch.empty(len(texts), backbone.dim, dtype=torch.float16)
    for some in order.split(TEXTS_SORTED):
        packed = ids[ranges(starts[some].numpy(), lengths[some].numpy())]
        found[some] = sentence_vectors(packed, lengths[some], backbone, "float16", progress)
    return found


def _tokens(texts: Sequence[str], backbone: Backbone) -> tuple[Ids, torch.Tensor]:
    """Token ids of texts end to end, and how many each has."""
    ids, lengths = [], []
    for start in range(0, len(texts), TEXTS_SORTED):
        tokens = backbone.tokenize(texts[start : start + TEXTS_SORTED])
        lengths.append(backbone.lengths(tokens))
        inside = torch.arange(tokens.shape[1]) < lengths[-1][:, None]
        ids.append(tokens[inside].int().numpy())
    return np.concatenate(ids), torch.cat(lengths)


def _encoded(tokens: Path, backbone: Backbone, dtype: StoreDtype, name: str) -> torch.Tensor:
    """[B, d] features of a partition's captions, encoded as the encode stage does."""
    ids, lengths = partitions.read_tokens(tokens)
    starts = lengths.cumsum(0) - lengths
    progress = Progress(name, len(lengths), "captions")
    found = torch.empty(len(lengths), backbone.dim, dtype=getattr(torch, dtype))
    for rows in torch.argsort(lengths, stable=True).split(CAPTIONS_PER_SHARD):
        packed = ids[ranges(starts[rows].numpy(), lengths[rows].numpy())]
        found[rows] = sentence_vectors(packed, lengths[rows], backbone, dtype, progress)
    return found


class SentenceVectors:
    """Vectors of finished partitions' captions, memory-mapped: rows are copied when asked for."""

    def __init__(self, folders: Sequence[Path]) -> None:
        mapped = [arrow.read_rows(folder / SENTENCES) for folder in folders]
        self._features: list[Any] = [arrow.matrix_of(each.rows["global"]) for each in mapped]
        self._kind: torch.dtype = getattr(torch, mapped[0].metadata["dtype"])
        self._ends = np.cumsum([len(features) for features in self._features])

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """[B, d] float32, L2-normalised, of the captions `rows` [B]."""
        wanted = rows.numpy()
        one = self._features[0]
        found = np.empty((len(wanted), one.shape[1]), one.dtype)
        part = np.searchsorted(self._ends, wanted, side="right")
        for number in np.unique(part):
            here = part == number
            first = self._ends[number] - len(self._features[number])
            found[here] = self._features[number][wanted[here] - first]
        # rounding has left them a little off unit length
        return F.normalize(torch.from_numpy(found).view(self._kind).float(), dim=-1)


class CaptionSentences:
    """Vectors and labels of the chosen captions."""

    def __init__(self, choice: Path, folders: Sequence[Path], classes: Sequence[str]) -> None:
        self._labels, self._vectors = Labels(choice, classes), SentenceVectors(folders)

    def __len__(self) -> int:
        return len(self._labels)

    def batch(self, rows: torch.Tensor, device: torch.device) -> SentenceBatch:
        """See `models.examples.Examples.batch`."""
        labels = self._labels.of(rows.numpy())
        return SentenceBatch(self._vectors(rows).to(device), labels.to(device))
