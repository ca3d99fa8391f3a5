"""Images decoded by threads ahead of the model, in batches; only so many are held at once."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeAlias

from models.lazily import lazily
from tasks.images.decode import Source, decode

with lazily():
    import torch

BATCHES_AHEAD: Final = 4
MOST_THREADS: Final = 16
"""Pillow decodes and resizes without Python's lock; at addresses, threads wait for the network."""
Read: TypeAlias = "torch.Tensor | str"
"""An image [3, R, R] float32, or why it is none."""


def decoded(batches: Iterable[Sequence[Source]], preprocess: Any) -> Iterator[list[Read]]:
    """The images of each batch, in their order."""
    pool = ThreadPoolExecutor(min(MOST_THREADS, 2 * (os.cpu_count() or 1)))
    waiting: deque[list[Future[Read]]] = deque()
    try:
        for batch in batches:
            waiting.append([pool.submit(read_image, source, preprocess) for source in batch])
            if len(waiting) > BATCHES_AHEAD:
                yield [image.result() for image in waiting.popleft()]
        while waiting:
            yield [image.result() for image in waiting.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)


def read_image(source: Source, preprocess: Any) -> Read:
    """One image, ready for the tower."""
    image = decode(source)
    if isinstance(image, str):
        return image
    tensor: torch.Tensor = preprocess(image)
    return tensor
