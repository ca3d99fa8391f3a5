"""Made-up captions, as long as COCO's, for benchmarks that need no data."""

import random
from collections.abc import Sequence

WORDS = (
    "a the on in with of and near two small large red white wooden sitting standing next to some "
    "people street table grass holding playing looking front while old young blue top field water"
)


def made_up(count: int, classes: Sequence[str], seed: int = 0) -> tuple[list[str], list[list[str]]]:
    """`count` captions of 8 to 16 words, each with 1 to 3 class names in it, and those names."""
    source = random.Random(seed)  # noqa: S311
    captions, labels = [], []
    for _ in range(count):
        named = source.sample(list(classes), k=min(len(classes), source.randint(1, 3)))
        words = source.choices(WORDS.split(), k=source.randint(7, 13)) + named
        source.shuffle(words)
        captions.append(" ".join(words).capitalize() + ".")
        labels.append(sorted(named))
    return captions, labels


def made_up_classes(count: int) -> list[str]:
    """`count` class names of one or two words."""
    first = ["dog", "cat", "bus", "cup", "chair", "horse", "kite", "clock", "boat", "apple"]
    second = ["", " stand", " board", " bag", " box", " toy", " sign", " house", " cover", " stick"]
    third = ["", "red ", "big ", "old ", "iron ", "paper ", "round ", "tall ", "striped ", "open "]
    names = [a + b + c for c in second for a in third for b in first]
    return names[:count]
