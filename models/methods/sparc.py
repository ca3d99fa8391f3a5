"""SPARC (Miller et al., CVPR 2025): the whole image's scores, debiased, and compound prompts.

Which classes a compound names is read off captions (a class beside another in more than a share of
its captions), and the compound's own vector is the mean of captions that name just these two: no
labels, no language model. Statistics come from captions, or from the set of images at hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import Field

from models.lazily import lazily
from models.method import Method, MethodSettings, Scores, Setup, State
from models.templates import PLAIN, clip_templates

with lazily():
    import torch
    from torch import Tensor
    from torch.nn import functional as F

    from models.backbone import ImageFeatures
    from models.examples import Examples, SentenceBatch
    from models.prompts import class_embeddings

CAPTIONS_AT_ONCE = 4096
REFERENCE = 4096


class SparcSettings(MethodSettings):
    """Which pairs, and what their statistics are of."""

    templates: Literal["plain", "clip"] = Field(
        "clip", description="Class vectors: “a photo of a …” alone, or CLIP's 80 sentences' mean."
    )
    share: float = Field(
        0.02, gt=0, le=1, description="Share of a class's captions that names the other of a pair."
    )
    most: int = Field(20, ge=1, description="Pairs of a class at most, the most frequent ones.")
    captions: int = Field(20, ge=1, description="Captions that a pair's vector is the mean of.")
    reference: Literal["captions", "images"] = Field(
        "captions",
        description="What scores are standardised over: captions, so that an image alone scores as "
        "in a set, or the set of images at hand (captions for one alone), as published.",
    )


class Sparc(Method):
    """Class scores without what an image gives to all classes, and the pairs that a class is in.

    Asks for global features alone. Nothing is trained; captions tell pairs and statistics.

    >>> method = Sparc(Sparc.Settings(templates="plain"))
    >>> state = method.fit(setup, sentence_examples)
    >>> sorted(method.score_images(state, images.features, kappa=10.0))
    ['global', 'merged']

    """

    name = "sparc"
    summary = "the whole image's scores, debiased, with pairs of classes that captions name"
    learns_from = "captions"
    reads = "sentences"
    needs = frozenset({"text tower"})
    Settings = SparcSettings
    settings: SparcSettings

    def fit(self, setup: Setup, examples: Examples[SentenceBatch]) -> State:
        """Class and pair vectors, and statistics of captions' scores."""
        templates = clip_templates() if self.settings.templates == "clip" else [PLAIN.format]
        classes = class_embeddings(setup.backbone, setup.names, templates).cpu()
        names = class_embeddings(setup.backbone, setup.names, ["{}".format]).cpu()
        pairs, vectors = self._pairs(examples, len(classes))
        state = {
            "classes": classes,
            "names": names,
            "pairs": vectors,
            "members": members_of(pairs, len(classes)),
        }
        captions = (
            examples.batch(rows, torch.device("cpu")).features
            for rows in torch.arange(len(examples)).split(CAPTIONS_AT_ONCE)
        )
        return {**state, **statistics(state, sampled(captions))}

    def for_set(self, state: State, batches: Iterable[ImageFeatures], kappa: float) -> State:
        """With statistics of these very images."""
        del kappa
        if self.settings.reference == "captions":
            return state
        return {**state, **statistics(state, sampled(each.pooled for each in batches))}

    def score_images(self, state: State, features: ImageFeatures, kappa: float) -> Scores:
        """Half the class's own score, half its and its pairs' along their common direction."""
        del kappa
        found = fused(state, features.pooled)
        return {"global": found, "merged": found}

    def score_captions(self, state: State, batch: SentenceBatch) -> Scores:
        """As of images."""
        return {"merged": fused(state, batch.features)}

    def class_vectors(self, state: State) -> Mapping[str, Tensor]:
        """The class vectors of the whole image."""
        return {"global": state["classes"]}

    def shapes(self, classes: int, dim: int) -> Mapping[str, tuple[int, ...]]:
        """See `Method.shapes`."""
        shape = (classes, dim)
        return {"classes": shape, "names": shape, "class_mean": (classes,), "class_std": (classes,)}

    def _pairs(
        self, examples: Examples[SentenceBatch], classes: int
    ) -> tuple[list[tuple[int, int]], Tensor]:
        """Pairs of classes that stand together, and the mean vector [P, d] of captions of each.

        A pair that no caption names alone has the mean of the captions that name it among others.
        """
        counts = torch.zeros(classes, classes, dtype=torch.int64)
        for rows in torch.arange(len(examples)).split(CAPTIONS_AT_ONCE):
            named = examples.batch(rows, torch.device("cpu")).labels.float()
            counts += (named.T @ named).long()
        alone = counts.diagonal().clamp(min=1)
        often = counts / alone[:, None]
        apart = ~torch.eye(classes, dtype=torch.bool)
        of_class = often.masked_fill(~apart, 0)
        # of one class's pairs as frequent, the first in the vocabulary
        rank = of_class.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        chosen = (of_class > self.settings.share) & (rank < self.settings.most)
        kept = (chosen | chosen.T).triu(1)
        pairs: list[tuple[int, int]] = [(int(i), int(j)) for i, j in kept.nonzero()]
        return pairs, self._vectors(examples, pairs)

    def _vectors(self, examples: Examples[SentenceBatch], pairs: list[tuple[int, int]]) -> Tensor:
        """The mean of the first captions that name a pair, those first that name nothing else."""
        just: list[list[Tensor]] = [[] for _ in pairs]
        among: list[list[Tensor]] = [[] for _ in pairs]
        one = examples.batch(torch.arange(1), torch.device("cpu")).features
        first, second = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(dim=1)
        for rows in torch.arange(len(examples)).split(CAPTIONS_AT_ONCE):
            batch = examples.batch(rows, torch.device("cpu"))
            both = batch.labels[:, first] & batch.labels[:, second]
            sizes = batch.labels.sum(dim=1)
            for row, pair in both.nonzero().tolist():
                found = just if int(sizes[row]) == 2 else among
                if len(found[pair]) < self.settings.captions:
                    found[pair].append(batch.features[row])
        means = [
            torch.stack(mine or others).mean(dim=0)
            for mine, others in zip(just, among, strict=True)
        ]
        return F.normalize(torch.stack(means), dim=-1) if means else one[:0]


def members_of(pairs: list[tuple[int, int]], classes: int) -> Tensor:
    """[C, K] which pairs each class is in, -1 where it is in fewer than K."""
    own: list[list[int]] = [[] for _ in range(classes)]
    for number, pair in enumerate(pairs):
        for label in pair:
            own[label].append(number)
    most = max(map(len, own), default=0)
    return torch.tensor(
        [numbers + [-1] * (most - len(numbers)) for numbers in own], dtype=torch.int64
    ).reshape(classes, most)


def debiased(state: State, features: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of classes [B, C] and pairs [B, P] less what this image gives to all, in deviations.

    Pairs are measured by the bare names' scores: a pair's own set is no fair one.
    """
    unit = F.normalize(features, dim=-1)
    single, bare = unit @ state["classes"].T, unit @ state["names"].T
    pairs = unit @ state["pairs"].T

    def spread(scores: Tensor) -> Tensor:
        return scores.std(dim=1, keepdim=True).clamp(min=1e-6)

    return (
        (single - single.mean(dim=1, keepdim=True)) / spread(single),
        (pairs - bare.mean(dim=1, keepdim=True)) / spread(bare),
    )


def ranked(state: State, features: Tensor) -> tuple[Tensor, Tensor]:
    """Standardised scores of each class [B, C], and of its pairs, greatest first [B, C, K].

    What a class has too few pairs for is 0, and has no weight.
    """
    classes, pairs = debiased(state, features)
    classes = (classes - state["class_mean"]) / state["class_std"]
    pairs = (pairs - state["pair_mean"]) / state["pair_std"]
    members = state["members"]
    missing = members < 0
    if not pairs.shape[1]:
        return classes, pairs.new_zeros(*classes.shape, 0)
    own = pairs[:, members.clamp(min=0)].masked_fill(missing, float("-inf"))
    return classes, own.sort(dim=2, descending=True).values.masked_fill(missing, 0)


def fused(state: State, features: Tensor) -> Tensor:
    """Scores [B, C]: half the class's own, half the weighted sum of it and its ranked pairs."""
    own, pairs = ranked(state, features)
    columns = torch.cat([pairs, own[..., None]], dim=2)
    return ((columns * state["weights"]).sum(dim=2) + own) / 2


def sampled(batches: Iterable[Tensor]) -> Tensor:
    """At least REFERENCE rows of batches, evenly spaced, and fewer than twice as many; or all."""
    kept: list[Tensor] = []
    step, seen = 1, 0
    for batch in batches:
        kept += [row for at, row in enumerate(batch, start=seen) if at % step == 0]
        seen += len(batch)
        while len(kept) >= 2 * REFERENCE:
            kept, step = kept[::2], 2 * step
    return torch.stack(kept)


def statistics(state: State, features: Tensor) -> dict[str, Tensor]:
    """Mean and deviation of each column over some features, and each class's weights [C, K + 1].

    The weights are the first principal component of the class's ranked columns.
    """
    found: dict[str, Tensor] = {}
    scores = debiased(state, features)
    for name, columns in zip(("class", "pair"), scores, strict=True):
        found[f"{name}_mean"] = columns.mean(dim=0)
        variance = (columns - found[f"{name}_mean"]).square().mean(dim=0)
        found[f"{name}_std"] = variance.sqrt().clamp(min=1e-6)
    own, pairs = (
        (columns - found[f"{name}_mean"]) / found[f"{name}_std"]
        for name, columns in zip(("class", "pair"), scores, strict=True)
    )
    members = state["members"]
    weights = own.new_zeros(members.shape[0], members.shape[1] + 1)
    for label, numbers in enumerate(members):
        inside = numbers[numbers >= 0]
        columns = pairs[:, inside].sort(dim=1, descending=True).values
        first = first_component(torch.cat([columns, own[:, label, None]], dim=1).double())
        weights[label, : len(inside)], weights[label, -1] = first[:-1].float(), first[-1]
    return {**found, "weights": weights}


def first_component(columns: Tensor) -> Tensor:
    """[K] direction of columns' [n, K] greatest variance, of positive mean, its sizes' sum 1."""
    centred = columns - columns.mean(dim=0)
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    first: Tensor = vectors[:, -1]
    turned = first if float(first.mean()) >= 0 else -first
    return turned / turned.abs().sum()
