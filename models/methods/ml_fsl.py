"""ML-FSL (Simon et al., WACV 2022): labels passed on from shots, and a count of labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal

from pydantic import Field

from models.lazily import lazily
from models.method import Learner, Method, Scores, Setup, State, TrainedSettings

with lazily():
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    from models.backbone import ImageFeatures
    from models.examples import Examples, ImageBatch

COUNTS: Final = 20
"""Sums of two label counts that the comparator tells apart: 0 to 19."""
HIDDEN: Final = 64
VOTERS: Final = 64
"""Supports that an image's label count is compared with, at most."""


class FewShotSettings(TrainedSettings):
    """Labels passed on from the shots."""

    epochs: int = Field(20, ge=1, description="Times that all images are gone through.")
    batch: int = Field(32, ge=1, description="Images per step.")
    learning_rate: float = Field(1e-3, gt=0, description="Adam's rate, of the comparator.")
    head: Literal["propagation", "prototypes"] = Field(
        "propagation", description="What scores: labels passed on, or distances to class means."
    )
    beta: float = Field(20.0, gt=0, description="Sharpness of the affinity exp(beta (cos - 1)).")
    together: int = Field(
        0,
        ge=0,
        description="Images of a set that labels are passed on over, at most; 0: each image is "
        "scored as if it came alone.",
    )


class CountLearner(Learner):
    """The comparator: from a query, a shot and the shots' mean to the sum of both label counts."""

    settings: FewShotSettings

    def __init__(self, setup: Setup, settings: FewShotSettings) -> None:
        super().__init__(settings)
        dim = setup.backbone.dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(setup.seed)
            self.query = nn.Linear(dim, HIDDEN)
            self.support = nn.Linear(dim, HIDDEN, bias=False)
            self.mean = nn.Linear(dim, HIDDEN, bias=False)
            self.out = nn.Linear(HIDDEN, COUNTS)
        self._shots: dict[str, Tensor] = {}

    def prepare(self, examples: Examples[ImageBatch], rows: Tensor, device: torch.device) -> None:
        """The shots, their labels, class means; and of how many labels each shot has, if known."""
        batch = examples.batch(rows, device)
        supports = F.normalize(batch.features.pooled, dim=-1)
        shown = (batch.labels == 1).to(supports.dtype)
        voters = torch.arange(min(VOTERS, len(rows))) * len(rows) // min(VOTERS, len(rows))
        self._shots = {
            "supports": supports,
            "labels": shown / shown.sum(dim=1, keepdim=True).clamp(min=1),
            "prototypes": shown.T @ supports / shown.sum(dim=0)[:, None].clamp(min=1),
            "voters": supports[voters],
            "voters/count": label_counts(batch.labels)[voters],
            "supports/mean": supports.mean(dim=0),
        }

    def loss(self, batch: ImageBatch, generator: torch.Generator) -> Tensor:
        """Cross-entropy of the sums of counts, of images and shots whose labels are all known."""
        del generator
        counts, shots = label_counts(batch.labels), self._shots
        queries = F.normalize(batch.features.pooled, dim=-1)[counts >= 0]
        known = shots["voters/count"] >= 0
        sums = counts[counts >= 0][:, None] + shots["voters/count"][known]
        logits = compared(queries, shots["voters"][known], shots["supports/mean"], self.weights())
        if not len(sums.flatten()):
            # nobody's count is known: there is nothing to learn, and gradients are 0
            return torch.stack([weight.sum() for weight in self.parameters()]).sum() * 0
        return F.cross_entropy(logits.flatten(0, 1), sums.flatten().clamp(max=COUNTS - 1))

    def weights(self) -> dict[str, Tensor]:
        """The comparator's, by name."""
        return {f"count/{name}": weight for name, weight in self.named_parameters()}

    def state(self) -> State:
        """The shots and the comparator."""
        found = {**self._shots, **self.weights()}
        return {name: tensor.detach().cpu() for name, tensor in found.items()}

    def optimiser(self) -> torch.optim.Optimizer:
        """Adam, as the paper has it."""
        return torch.optim.Adam(self.parameters(), lr=1.0)

    def rate(self, epoch: int, step: int, steps: int) -> float:
        """The same throughout."""
        del epoch, step, steps
        return self.settings.learning_rate


class MLFSL(Method):
    """Labels passed on from labelled images to others by resemblance, on frozen features.

    The paper meta-learns a whole network; here are its head on CLIP's feature, which needs no
    training, and its label counter, which is trained on the shots. `counted` are the scores of the
    classes that an image is said to show, as many as the counter says, and 0 for all others.

    >>> method = MLFSL(MLFSL.Settings(epochs=1))
    >>> learner = method.learner(setup)
    >>> learner.prepare(labelled, torch.arange(len(labelled)), setup.backbone.device)
    >>> learner.loss(images, setup.generator).backward()

    """

    name = "ml-fsl"
    summary = "labels passed on from labelled images by resemblance; a head on frozen features"
    learns_from = "labelled images"
    Settings = FewShotSettings
    settings: FewShotSettings

    def learner(self, setup: Setup) -> Learner:
        """See `Method.learner`."""
        return CountLearner(setup, self.settings)

    def for_set(self, state: State, batches: Iterable[ImageFeatures], kappa: float) -> State:
        """With images of the set as further nodes, and the labels that reach them."""
        del kappa
        if not self.settings.together or self.settings.head == "prototypes":
            return state
        images = torch.cat([F.normalize(each.pooled, dim=-1) for each in batches])
        count = min(self.settings.together, len(images))
        nodes = images[torch.arange(count) * len(images) // count]
        reached = propagated(nodes, state["supports"], state["labels"], self.settings.beta)
        return {**state, "nodes": nodes, "nodes/labels": reached}

    def score_images(self, state: State, features: ImageFeatures, kappa: float) -> Scores:
        """Labels that reach the image, or the softmax of its nearness to class means."""
        del kappa
        queries = F.normalize(features.pooled, dim=-1)
        if self.settings.head == "prototypes":
            distances = torch.cdist(queries, state["prototypes"]).square()
            merged = (-distances).softmax(dim=-1)
        else:
            merged = self._reached(queries, state)
        counts = voted(queries, state)
        ranks = merged.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
        return {"counted": merged.masked_fill(ranks >= counts[:, None], 0.0), "merged": merged}

    def _reached(self, queries: Tensor, state: State) -> Tensor:
        supports, labels = state["supports"], state["labels"]
        if "nodes" in state:
            supports = torch.cat([supports, state["nodes"]])
            labels = torch.cat([labels, state["nodes/labels"]])
        weights = affinities(queries, supports, self.settings.beta)
        if "nodes" in state:
            # an image is no neighbour of its own
            of_nodes = weights[:, len(state["supports"]) :]
            of_nodes[queries @ state["nodes"].T > 1 - 1e-6] = 0
        return weights / weights.sum(dim=1, keepdim=True) @ labels

    def shapes(self, classes: int, dim: int) -> Mapping[str, tuple[int, ...]]:
        """See `Method.shapes`."""
        return {
            "prototypes": (classes, dim),
            "supports/mean": (dim,),
            "count/query.weight": (HIDDEN, dim),
            "count/query.bias": (HIDDEN,),
            "count/support.weight": (HIDDEN, dim),
            "count/mean.weight": (HIDDEN, dim),
            "count/out.weight": (COUNTS, HIDDEN),
            "count/out.bias": (COUNTS,),
        }

    def check_state(self, state: State, classes: int, dim: int) -> None:
        """See `Method.check_state`; there may be any number of shots."""
        super().check_state(state, classes, dim)
        for name, columns in (("supports", dim), ("labels", classes), ("voters", dim)):
            if name not in state or state[name].ndim != 2 or state[name].shape[1] != columns:
                raise ValueError(f"no tensor {name!r} of {columns} columns")


def affinities(rows: Tensor, columns: Tensor, beta: float) -> Tensor:
    """exp(beta (cos - 1)) [N, M] of vectors [N, d] and [M, d] of unit length."""
    return (beta * (rows @ columns.T - 1)).exp()


def propagated(queries: Tensor, supports: Tensor, labels: Tensor, beta: float) -> Tensor:
    """(I - T_uu)⁻¹ T_ul Y [Q, C]: labels that reach queries [Q, d] from supports and each other.

    Args:
        queries: [Q, d] of unit length.
        supports: [K, d] of unit length.
        labels: [K, C], rows of sum 1 (or 0).
        beta: sharpness of the affinities T, whose rows sum to 1 and whose diagonal is 0.

    """
    of_supports = affinities(queries.double(), supports.double(), beta)
    among = affinities(queries.double(), queries.double(), beta).fill_diagonal_(0)
    total = of_supports.sum(dim=1, keepdim=True) + among.sum(dim=1, keepdim=True)
    among, out = among / total, of_supports.sum(dim=1) / total[:, 0]
    reached = of_supports / total @ labels.double()
    # queries far from all supports leave I - T_uu nearly singular, and a solver loses all digits;
    # eliminated as Grassmann, Taksar and Heyman do (1985), nothing is ever subtracted
    leaving = torch.empty_like(out)
    for last in range(len(queries) - 1, -1, -1):
        leaving[last] = among[last, :last].sum() + out[last]
        passed = among[:last, last] / leaving[last]
        among[:last, :last] += torch.outer(passed, among[last, :last])
        out[:last] += passed * out[last]
        reached[:last] += torch.outer(passed, reached[last])
    for row in range(len(queries)):
        reached[row] = (reached[row] + among[row, :row] @ reached[:row]) / leaving[row]
    return reached.to(labels.dtype)


def label_counts(labels: Tensor) -> Tensor:
    """[N] how many labels each image has, -1 where one of them is unknown."""
    counts = (labels == 1).sum(dim=1)
    return counts.where((labels >= 0).all(dim=1), -1)


def compared(queries: Tensor, shots: Tensor, mean: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """Logits [Q, K, 20] of the sums of counts, from [query; shot; mean of the shots]."""
    hidden = (
        F.linear(queries, weights["count/query.weight"], weights["count/query.bias"])[:, None]
        + F.linear(shots, weights["count/support.weight"])
        + F.linear(mean, weights["count/mean.weight"])
    )
    return F.linear(hidden.relu(), weights["count/out.weight"], weights["count/out.bias"])


def voted(queries: Tensor, state: State) -> Tensor:
    """[Q] label counts: each shot votes for the likeliest sum less its own, and at least for 1."""
    known = state["voters/count"] >= 0
    logits = compared(queries, state["voters"][known], state["supports/mean"], state)
    votes = (logits.argmax(dim=-1) - state["voters/count"][known]).clamp(min=1)
    ballots = F.one_hot(votes, COUNTS).sum(dim=1)
    # of equally many votes the smaller number; of none at all 1
    return ballots.argmax(dim=-1).clamp(min=1)
