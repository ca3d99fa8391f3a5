"""CoCoOp (Zhou et al., CVPR 2022): contexts that each image's own feature shifts."""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field

from models.choices import LossName
from models.lazily import lazily
from models.method import Learner, Method, Scores, Setup, State, TrainedSettings

with lazily():
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    from models.backbone import ImageFeatures
    from models.examples import ImageBatch
    from models.losses import CosineLoss
    from models.prompts import PromptLearner, encode_rows, rows_of
    from models.tower import StoredTower, tower_state

NARROWING: Final = 16
"""By which the meta-net's hidden layer is narrower than the image's feature."""
META_NET: Final = ("into.weight", "into.bias", "out.weight", "out.bias")
ROUNDS: Final = 25
"""Of k-means, at most."""
SUFFIXES_AT_ONCE: Final = 4096
"""Prompts that go through the tower together."""


class ConditionalSettings(TrainedSettings):
    """Prompt tuning on labelled images, conditioned on the image (PEERS 2)."""

    epochs: int = Field(10, ge=1, description="Times that all images are gone through.")
    batch: int = Field(1, ge=1, description="Images per step, each with prompts of its own.")
    learning_rate: float = Field(2e-3, gt=0, description="Base rate of the schedule.")
    contexts: int = Field(
        4, ge=1, le=64, description="Context tokens M of each prompt where `words` is empty."
    )
    words: str = Field("a photo of a", description="What the contexts are at first; empty: random.")
    negatives: int = Field(
        32, ge=1, description="Classes that no image of a step shows, drawn for it, at most."
    )
    loss: LossName = Field("ranking", description="ranking, bce or asl.")
    margin: float = Field(1.0, gt=0, description="Ranking loss's margin m, on scaled cosines.")
    scale: float = Field(4.0, gt=0, description="Factor s on the cosines of the ranking loss.")
    gain: float = Field(
        20.0, gt=0, description="Factor a on the cosines of bce and asl at first; it is learned."
    )
    centres: int = Field(
        0,
        ge=0,
        description="0: each image is scored by its own prompts. Else, for large image sets, an "
        "approximation: by those of the nearest of so many k-means centres of training images.",
    )


class ConditionalTuning(Learner):
    """The loss of cosines of images with prompts of their own, in contexts and meta-net."""

    settings: ConditionalSettings

    def __init__(self, setup: Setup, settings: ConditionalSettings) -> None:
        super().__init__(settings)
        backbone = setup.backbone
        self.prompts = PromptLearner(
            backbone,
            setup.names,
            contexts=settings.contexts,
            sets=1,
            words=settings.words,
            generator=setup.generator,
        )
        hidden = max(1, backbone.dim // NARROWING)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(setup.seed)
            self.into = nn.Linear(backbone.dim, hidden).to(backbone.device)
            self.out = nn.Linear(hidden, backbone.width).to(backbone.device)
        self.loss_of = CosineLoss(
            settings.loss, margin=settings.margin, scale=settings.scale, gain=settings.gain
        ).to(backbone.device)
        self._classes = len(setup.names)
        self._seed = setup.seed
        self._seen = torch.zeros(1, backbone.dim)

    def prepare(self, examples: Any, rows: Tensor, device: torch.device) -> None:
        """Keep the images' features where centres are asked for; start losses that have a bias."""
        if self.settings.centres:
            parts = [examples.batch(part, device).features.pooled for part in rows.split(256)]
            self._seen = F.normalize(torch.cat(parts), dim=-1).cpu()
        if self.settings.loss != "ranking":
            batch: ImageBatch = examples.batch(rows[:NARROWING], device)
            with torch.no_grad():
                images, classes = self._encoded(batch.features.pooled, None)
                cosines = torch.einsum("bd,bcd->bc", images, classes)
            self.loss_of.start(float(cosines.mean()))

    def loss(self, batch: ImageBatch, generator: torch.Generator) -> Tensor:
        """Of the classes that the images show and some others, which are drawn."""
        shown = (batch.labels == 1).any(dim=0).cpu()
        order = torch.randperm(self._classes, generator=generator)
        others = order[~shown[order]][: self.settings.negatives]
        classes = torch.cat([shown.nonzero().flatten(), others]).sort().values
        images, prompts = self._encoded(batch.features.pooled, classes.tolist())
        cosines = torch.einsum("bd,bcd->bc", images, prompts)
        found: Tensor = self.loss_of(cosines, batch.labels[:, classes.to(batch.labels.device)])
        return found

    def _encoded(self, pooled: Tensor, classes: list[int] | None) -> tuple[Tensor, Tensor]:
        """Images [B, d] and their prompts [B, C, d], of unit length."""
        images = F.normalize(pooled, dim=-1)
        shift = meta_net(images, self.into.weight, self.into.bias, self.out.weight, self.out.bias)
        encoded = self.prompts.encode(self.prompts.context + shift[:, None], classes)
        return images, F.normalize(encoded, dim=-1)

    def state(self) -> State:
        """Contexts and meta-net, and what scoring needs besides.

        With centres: those [K, d] and their prompts [K, C, d]. Else the text tower and the prompts'
        own tokens, for prompts of each image.
        """
        named = {name: value.detach().cpu() for name, value in self.named_parameters()}
        found = {name.replace("prompts.context", "context"): value for name, value in named.items()}
        if self.settings.centres:
            centres = k_means(self._seen, self.settings.centres, self._seed)
            device = self.prompts.context.device
            with torch.no_grad():
                parts = [self._encoded(part.to(device), None)[1] for part in centres.split(16)]
            return found | {"centres": centres, "prompts": torch.cat(parts).cpu()}
        constants, prompts = self.prompts.tables()
        longest = max(len(prompt) for prompt in prompts)
        padded = [prompt + [-1] * (longest - len(prompt)) for prompt in prompts]
        tokens = {"tokens": constants.cpu(), "rows": torch.tensor(padded)}
        return found | tokens | tower_state(self.prompts.backbone)


class CoCoOp(Method):
    """Prompts whose contexts a small network shifts by the image's feature.

    >>> method = CoCoOp(CoCoOp.Settings(centres=2, epochs=1))
    >>> learner = method.learner(setup)
    >>> learner.loss(labelled.whole, setup.generator).backward()

    """

    name = "cocoop"
    summary = "a prompt per class and image, learned from labelled images"
    learns_from = "labelled images"
    needs = frozenset({"causal text tower", "text tower"})
    Settings = ConditionalSettings
    settings: ConditionalSettings

    def learner(self, setup: Setup) -> Learner:
        """See `Method.learner`."""
        return ConditionalTuning(setup, self.settings)

    def score_images(self, state: State, features: ImageFeatures, kappa: float) -> Scores:
        """Cosines with each image's own prompts, or with those of its nearest centre."""
        del kappa
        images = F.normalize(features.pooled, dim=-1)
        if "centres" in state:
            nearest = (images @ state["centres"].T).argmax(dim=-1)
            scores = torch.einsum("bd,bcd->bc", images, state["prompts"][nearest])
            return {"global": scores, "merged": scores}
        tower = StoredTower(state)
        own = [[at for at in prompt if at >= 0] for prompt in state["rows"].tolist()]
        rows = rows_of(own, images.device)
        shifts = meta_net(images, *(state[name] for name in META_NET))
        found = []
        at_once = max(1, SUFFIXES_AT_ONCE // len(own))
        with torch.no_grad():
            for some, shift in zip(images.split(at_once), shifts.split(at_once), strict=True):
                context = state["context"] + shift[:, None]
                prompts = encode_rows(tower, state["tokens"], context, rows)
                found.append(torch.einsum("bd,bcd->bc", some, F.normalize(prompts, dim=-1)))
        scores = torch.cat(found)
        return {"global": scores, "merged": scores}

    def check_state(self, state: State, classes: int, dim: int) -> None:
        """See `Method.check_state`."""
        super().check_state(state, classes, dim)
        own = ("centres", "prompts") if "centres" in state else ("tokens", "rows", "tower.heads")
        for name in ("context", *META_NET, *own):
            if name not in state:
                raise ValueError(f"no tensor {name!r}")
        rows = state["prompts"].shape[1] if "centres" in state else len(state["rows"])
        if rows != classes or state[META_NET[0]].shape[1] != dim:
            raise ValueError(f"prompts of {rows} classes; expected {classes} in {dim} dimensions")


def meta_net(
    images: Tensor, weight: Tensor, bias: Tensor, out_weight: Tensor, out_bias: Tensor
) -> Tensor:
    """What contexts are shifted by [B, w]: linear, ReLU, linear of unit features [B, d]."""
    return F.linear(F.relu(F.linear(images, weight, bias)), out_weight, out_bias)


def k_means(points: Tensor, centres: int, seed: int) -> Tensor:
    """Unit centres [K, d] of unit points [N, d] by cosine (Lloyd); no more than there are points.

    They start at drawn points; one that no point is nearest to stays where it was.
    """
    generator = torch.Generator().manual_seed(seed)
    found = points[torch.randperm(len(points), generator=generator)[:centres]]
    for _ in range(ROUNDS):
        nearest = (points @ found.T).argmax(dim=-1)
        sums = torch.zeros_like(found).index_add(0, nearest, points)
        lengths = sums.norm(dim=-1, keepdim=True)
        moved = torch.where(lengths > 0, sums / lengths.clamp(min=1e-12), found)
        if moved.equal(found):
            break
        found = moved
    return found
