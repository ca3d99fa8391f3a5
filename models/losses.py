"""Losses on scores [B, C] and labels [B, C], booleans or 1, 0 and -1, unknown (METHODS 1, 3).

An unknown label is neither a positive nor a negative, and adds nothing.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.choices import LossName

Loss = Callable[[Tensor, Tensor], Tensor]


def loss_on_cosines(name: LossName, *, margin: float, scale: float) -> Loss:
    """A loss of cosines and labels [B, C]; the logits of BCE and ASL are scale x cosine."""
    losses: dict[LossName, Loss] = {
        "ranking": lambda scores, labels: ranking_loss(scores, labels, margin=margin, scale=scale),
        "bce": lambda scores, labels: bce_loss(scale * scores, labels),
        "asl": lambda scores, labels: asymmetric_loss(scale * scores, labels),
    }
    return losses[name]


def ranking_loss(
    scores: Tensor,
    labels: Tensor,
    *,
    margin: float = 1.0,
    scale: float = 4.0,
    known: Tensor | None = None,
) -> Tensor:
    """Sum of max(0, m - s p_i + s p_j) over a row's (positive i, negative j), mean over rows.

    TaI-DPT, equation 5 with the public code's scale s. A row without positives adds 0, and so does
    a label that is not `known` [B, C]. Memory is [positives, C], not [B, C, C].
    """
    rows, positives = (labels == 1).nonzero(as_tuple=True)
    higher = scores[rows, positives, None]
    hinge = F.relu(margin - scale * (higher - scores[rows]))
    is_left_out = labels != 0 if known is None else (labels != 0) | ~known
    return hinge.masked_fill(is_left_out[rows], 0.0).sum() / len(scores)


def bce_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy on logits, mean over all known entries; 0 if none is known."""
    known = labels >= 0
    targets = (labels == 1).to(logits.dtype)
    errors = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return errors.masked_fill(~known, 0.0).sum() / known.sum().clamp(min=1)


def asymmetric_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    gamma_negative: float = 2.0,
    gamma_positive: float = 1.0,
    clip: float = 0.05,
    known: Tensor | None = None,
) -> Tensor:
    """Asymmetric loss (Ridnik et al., ICCV 2021), summed over known classes, mean over rows."""
    positive = logits.sigmoid()
    negative = (1 - positive + clip).clamp(max=1.0)
    of_positives = (1 - positive) ** gamma_positive * F.logsigmoid(logits)
    of_negatives = (1 - negative) ** gamma_negative * negative.clamp(min=1e-8).log()
    is_left_out = labels < 0 if known is None else (labels < 0) | ~known
    terms = torch.where(labels == 1, of_positives, of_negatives).masked_fill(is_left_out, 0.0)
    return -terms.sum() / len(logits)


def focused_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    gamma_negative: float = 2.0,
    gamma_positive: float = 1.0,
    clip: float = 0.05,
    least: float = 1e-6,
) -> Tensor:
    """The asymmetric loss as DualCoOp has it (PEERS 4), summed over all known entries.

    Its focal weights carry no gradient, and probabilities are no less than `least` in logarithms.
    """
    positive = logits.sigmoid()
    negative = (1 - positive + clip).clamp(max=1.0)
    with torch.no_grad():
        of_positives = (1 - positive) ** gamma_positive
        of_negatives = (1 - negative) ** gamma_negative
    terms = torch.where(
        labels == 1,
        of_positives * positive.clamp(min=least).log(),
        of_negatives * negative.clamp(min=least).log(),
    )
    return -terms.masked_fill(labels < 0, 0.0).sum()


class CosineLoss(nn.Module):
    """A loss of cosines and labels [B, C], for methods that learn from labelled images.

    The ranking loss takes scaled cosines. BCE and ASL take logits a x cosine + b, both learned:
    with CLIP's scale and no bias every class would be near certain, and gradients push all down
    (PEERS 1). They start where the mean cosine has the logit 0, once `start` has heard of it.
    """

    def __init__(self, name: LossName, *, margin: float, scale: float, gain: float) -> None:
        super().__init__()
        self._name, self._margin, self._scale = name, margin, scale
        if name != "ranking":
            self.gain = nn.Parameter(torch.tensor(gain))
            self.bias = nn.Parameter(torch.tensor(0.0))

    def start(self, mean_cosine: float) -> None:
        """Set b to -a x the mean cosine."""
        if self._name != "ranking":
            with torch.no_grad():
                self.bias.copy_(-self.gain * mean_cosine)

    def forward(self, cosines: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss; unknown labels add nothing."""
        if self._name == "ranking":
            return ranking_loss(cosines, labels, margin=self._margin, scale=self._scale)
        logits = self.gain * cosines + self.bias
        losses = {"bce": bce_loss, "asl": asymmetric_loss}
        return losses[self._name](logits, labels)
