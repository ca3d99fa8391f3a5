"""Phrases as patches: a caption as a set of things, as the positions of an image are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from models.lazily import lazily
from models.method import Learner, Method, Scores, Setup, State, Study, TrainedSettings
from models.templates import PLAIN

with lazily():
    import torch
    from torch import Tensor
    from torch.nn import functional as F

    from models.backbone import ImageFeatures
    from models.examples import Examples, PhraseBatch
    from models.losses import ranking_loss
    from models.prompts import class_embeddings
    from models.scoring import centred, centred_scores, packed_pooled


class PhraseSettings(TrainedSettings):
    """Class vectors learned from phrases."""

    epochs: int = Field(8, ge=1, description="Times that all captions are gone through.")
    learning_rate: float = Field(1e-2, gt=0, description="Adam's rate at first; a cosine by step.")
    kappa: float = Field(10.0, gt=0, description="Softmax's scale over a caption's phrases.")
    margin: float = Field(1.0, gt=0, description="Ranking loss's margin m, on scaled cosines.")
    scale: float = Field(4.0, gt=0, description="Factor s on the cosines inside the loss.")
    pull: float = Field(
        0.2, ge=0, description="Weight of the squared distance to the mean of a class's phrases."
    )
    context: float = Field(
        0.25, ge=0, description="Share of the image's feature mixed into each position's."
    )
    global_weight: float = Field(
        0.25, ge=0, description="Weight of the whole image's untrained score beside the positions'."
    )


class PhraseLearner(Learner):
    """Class vectors [C, d] that start at, and are pulled to, the mean of each class's phrases."""

    settings: PhraseSettings

    def __init__(self, setup: Setup, settings: PhraseSettings) -> None:
        super().__init__(settings)
        found = class_embeddings(setup.backbone, setup.names, [PLAIN.format])
        self.untrained = found
        self.means = found
        self.classes = torch.nn.Parameter(found.clone())

    def prepare(self, examples: Examples[PhraseBatch], rows: Tensor, device: torch.device) -> None:
        """Means over each class's phrases; a class that no phrase names keeps its own vector."""
        # the class's own vector counts as one phrase, so that a single odd one does not decide
        total, count = self.untrained.clone(), torch.ones(len(self.untrained), device=device)
        for some in rows.split(4096):
            batch = examples.batch(some, device)
            total.index_add_(0, batch.named_classes, batch.features[batch.named])
            count.index_add_(
                0, batch.named_classes, torch.ones_like(batch.named, dtype=count.dtype)
            )
        self.means = F.normalize(total / count[:, None], dim=-1)
        with torch.no_grad():
            self.classes.copy_(self.means)

    def loss(self, batch: PhraseBatch, generator: torch.Generator) -> Tensor:
        """Ranking loss of pooled phrases, plus the pull."""
        del generator
        settings = self.settings
        cosines = batch.features @ centred(self.classes).T
        scores = packed_pooled(cosines, batch.offsets, settings.kappa)
        ranked = ranking_loss(scores, batch.labels, margin=settings.margin, scale=settings.scale)
        return ranked + settings.pull * (self.classes - self.means).square().sum()

    def state(self) -> State:
        """Centred vectors of positions (learned) and of the whole image (not)."""
        return {
            "local": centred(self.classes.detach()).cpu(),
            "global": centred(self.untrained).cpu(),
        }

    def optimiser(self) -> torch.optim.Optimizer:
        """Adam: the vectors' gradients differ by orders of magnitude with their frequency."""
        return torch.optim.Adam(self.parameters(), lr=1.0)

    def rate(self, epoch: int, step: int, steps: int) -> float:
        """Half a cosine from the base rate to 0, by step."""
        place = (epoch * steps + step) / (self.settings.epochs * steps)
        return self.settings.learning_rate * (1 + math.cos(math.pi * place)) / 2


class PhrasePatches(Method):
    """Class vectors learned from captions whose phrases are encoded alone, as positions are.

    TaI-DPT's local prompts learn from hidden states of a causal tower's tokens, which no training
    ever aligned with images and which carry all that stands before them. Here each span that names
    a class, with the word before it, and each stretch between spans goes through the text tower by
    itself, to the space that CLIP shares; they are pooled as an image's positions are, under the
    same ranking loss.

    >>> method = PhrasePatches(PhrasePatches.Settings(epochs=1))
    >>> learner = method.learner(setup)
    >>> learner.loss(phrases, setup.generator).backward()

    """

    name = "phrase-patches"
    summary = "class vectors learned from captions, their phrases encoded alone"
    learns_from = "captions"
    reads = "phrases"
    needs = frozenset({"text tower", "dense features"})
    Settings = PhraseSettings
    settings: PhraseSettings
    studies: ClassVar[tuple[Study, ...]] = (
        Study(
            "context",
            "How much of the whole image in each position?",
            "context",
            {
                str(share): {"methods.phrase-patches.context": share}
                for share in (0.0, 0.1, 0.25, 0.5)
            },
        ),
        Study(
            "pull",
            "How hard to the mean of a class's phrases?",
            "pull",
            {
                str(weight): {"methods.phrase-patches.pull": weight}
                for weight in (0.0, 0.05, 0.2, 1.0, 100.0)
            },
        ),
    )

    def learner(self, setup: Setup) -> Learner:
        """See `Method.learner`."""
        return PhraseLearner(setup, self.settings)

    def score_images(self, state: State, features: ImageFeatures, kappa: float) -> Scores:
        """The positions' score plus the whole image's untrained one, weighted."""
        of_global, of_local = centred_scores(
            features.pooled,
            features.dense,
            state["global"],
            state["local"],
            kappa=kappa,
            context=self.settings.context,
        )
        merged = of_local + self.settings.global_weight * of_global
        return {"global": of_global, "local": of_local, "merged": merged}

    def score_captions(self, state: State, batch: PhraseBatch) -> Scores:
        """As in training: phrases alone."""
        cosines = batch.features @ state["local"].T
        return {"merged": packed_pooled(cosines, batch.offsets, self.settings.kappa)}

    def class_vectors(self, state: State) -> Mapping[str, Tensor]:
        """The learned vectors, and the untrained ones."""
        return {"global": state["global"], "local": state["local"]}

    def shapes(self, classes: int, dim: int) -> Mapping[str, tuple[int, ...]]:
        """See `Method.shapes`."""
        return {"global": (classes, dim), "local": (classes, dim)}
