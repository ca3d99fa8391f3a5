"""The learning rate of CoOp and TaI-DPT: one constant warm-up epoch, then cosine, by epoch."""

import math

WARMUP = 1e-5


def learning_rate(epoch: int, *, epochs: int, base: float) -> float:
    """Rate of a 0-based epoch: 1e-5 in the first, then base (1 + cos(pi (epoch - 1) / epochs)) / 2.

    The cosine starts from its own zero after the warm-up, as in the public code: the first epoch
    behind it has the whole rate, and the last of 20 still 2.4 % of it.
    """
    if epoch == 0:
        return WARMUP
    return base * (1 + math.cos(math.pi * (epoch - 1) / epochs)) / 2
