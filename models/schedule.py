"""The learning rate of CoOp and TaI-DPT: one constant warm-up epoch, then cosine, by epoch."""

import math

WARMUP = 1e-5


def learning_rate(epoch: int, *, epochs: int, base: float) -> float:
    """Rate of a 0-based epoch: 1e-5 in the first, then base (1 + cos(pi epoch / epochs)) / 2."""
    return WARMUP if epoch == 0 else base * (1 + math.cos(math.pi * epoch / epochs)) / 2
