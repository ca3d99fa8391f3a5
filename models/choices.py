"""Words by which settings choose, apart from what they choose."""

from typing import Literal

LossName = Literal["ranking", "bce", "asl"]
"""A loss of `models.losses`."""
Position = Literal["end", "middle", "front"]
"""Where a class name stands among context tokens."""
