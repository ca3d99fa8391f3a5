"""A linear probe learns from true labels: for scale, what labelled images would have taught."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from models.lazily import lazily
from models.method import Method, MethodSettings, Scores, Setup, State, Study
from models.studies import FEW_SHOT, NOVEL_CLASSES, PARTIAL_LABELS

with lazily():
    import torch
    from torch import Tensor
    from torch.nn import functional as F

    from models.backbone import ImageFeatures
    from models.examples import Images


class ProbeSettings(MethodSettings):
    """Logistic regressions by L-BFGS."""

    weight_decay: float = Field(1e-5, ge=0, description="Half of it times the squared weights.")
    iterations: int = Field(200, ge=1, description="L-BFGS steps at most.")


class LinearProbe(Method):
    """One logistic regression per class, on the global feature and each dense dimension's maximum.

    >>> method = LinearProbe()
    >>> state = method.fit(setup, labelled)
    >>> sorted(method.score_images(state, images.features, kappa=10.0))
    ['merged']

    """

    name = "linear-probe"
    summary = "for scale: learned from the true labels of other images"
    learns_from = "labelled images"
    needs = frozenset({"dense features"})
    Settings = ProbeSettings
    settings: ProbeSettings
    studies: ClassVar[tuple[Study, ...]] = (FEW_SHOT, PARTIAL_LABELS, NOVEL_CLASSES)

    def fit(self, setup: Setup, examples: Images) -> State:
        """Weights [C, 2d] and biases [C] that minimise the cross-entropy of known labels.

        The mean over images of the summed cross-entropies, plus `weight_decay` / 2 times the
        squared weights (biases are free). An unknown label adds nothing.
        """
        # all at once: L-BFGS looks at every example in each step
        batch = examples.batch(torch.arange(len(examples)), torch.device("cpu"))
        inputs = probe_inputs(batch.features)
        known = (batch.labels >= 0).to(inputs.dtype)
        targets = (batch.labels == 1).to(inputs.dtype)
        weight = torch.zeros(len(setup.names), inputs.shape[1], requires_grad=True)
        bias = torch.zeros(len(setup.names), requires_grad=True)
        optimiser = torch.optim.LBFGS(
            [weight, bias],
            max_iter=self.settings.iterations,
            history_size=20,
            line_search_fn="strong_wolfe",
        )

        def loss() -> Tensor:
            optimiser.zero_grad()
            logits = F.linear(inputs, weight, bias)
            errors = F.binary_cross_entropy_with_logits(
                logits, targets, weight=known, reduction="sum"
            )
            decay = self.settings.weight_decay / 2 * weight.square().sum()
            total = errors / len(inputs) + decay
            total.backward()
            return total

        optimiser.step(loss)
        return {"weight": weight.detach(), "bias": bias.detach()}

    def score_images(self, state: State, features: ImageFeatures, kappa: float) -> Scores:
        """Logits, which look at global and dense features at once."""
        del kappa
        return {"merged": F.linear(probe_inputs(features), state["weight"], state["bias"])}

    def shapes(self, classes: int, dim: int) -> Mapping[str, tuple[int, ...]]:
        """See `Method.shapes`."""
        return {"weight": (classes, 2 * dim), "bias": (classes,)}


def probe_inputs(features: ImageFeatures) -> Tensor:
    """[B, 2d]: the global feature, and the greatest of each dense dimension, all normalised."""
    highest = F.normalize(features.dense, dim=-1).amax(dim=1)
    return torch.cat([F.normalize(features.pooled, dim=-1), highest], dim=-1)
