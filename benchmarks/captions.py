"""Captions for benchmarks: made up, as long as COCO's, and their way into a store."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from models.backbone import Backbone
    from tasks.captions.encode import StoreDtype

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


def encode_table(
    captions: pa.Table, backbone: "Backbone", folder: Path, dtype: "StoreDtype" = "float16"
) -> dict[str, float]:
    """Tokenise and encode a table (caption_id, text, classes) as one partition, all in `folder`."""
    # no torch in the processes whose peak memory is measured
    from tasks.captions.encode import write_features
    from tasks.captions.partitions import tokens_file, write_partitions

    ((name, (count, tokens)),) = write_partitions([captions], backbone, folder).items()
    figures = write_features(tokens_file(folder, name), backbone, folder, dtype=dtype)
    return figures | {"tokens_per_caption": round(tokens / count, 2)}
