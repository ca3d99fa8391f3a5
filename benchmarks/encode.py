"""Captions per second of the encode stage, against padding to 77 tokens: RN50's text tower.

Real COCO captions where they are (`--data`, MS-COCO's layout), made-up ones else. The plain way is
timed on the first of them.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from benchmarks import plain
from benchmarks.captions import encode_table, made_up, made_up_classes
from benchmarks.plain import RN50
from benchmarks.timing import medians
from tasks.backbone.devices import native_precision
from tasks.backbone.loading import create_backbone, load_backbone

MINI = Path(__file__).parents[2] / "shared" / "data" / "coco_mini"
SLICE = 64


def captions(data: Path, count: int) -> tuple[list[str], str]:
    """`count` captions from all over MS-COCO's val2017, or made-up ones, and which they are."""
    path = data / "annotations" / "captions_val2017.json"
    if not path.is_file():
        print(f"{path} is not there: captions are made up")
        return made_up(count, made_up_classes(80))[0], "made-up captions"
    found = json.loads(path.read_text(encoding="utf-8"))["annotations"]
    return [each["caption"] for each in found[:: len(found) // count][:count]], "COCO captions"


def measure(texts: Sequence[str], repeats: int) -> dict[str, float]:
    """Captions per second of both ways, and their ratio."""
    precision = native_precision("cpu")
    backbone = load_backbone(**RN50, precision=precision).backbone
    bare = create_backbone(**RN50).backbone
    ids = [str(number) for number in range(len(texts))]
    table = pa.table({"caption_id": ids, "text": texts, "classes": [["any"]] * len(texts)})
    figures = {}

    def padded() -> None:
        plain.caption_features(bare.clip, bare.tokenize(texts[:SLICE]))

    def bucketed() -> None:
        nonlocal figures
        with tempfile.TemporaryDirectory() as folder:
            figures = encode_table(table, backbone, Path(folder))

    padded_s, bucketed_s = medians(padded, bucketed, repeats=repeats)
    plain_rate, fast_rate = SLICE / padded_s, len(texts) / bucketed_s
    return {
        "plain_per_s": round(plain_rate, 1),
        "fast_per_s": round(fast_rate, 1),
        "ratio": round(fast_rate / plain_rate, 2),
        "tokens_per_caption": figures["tokens_per_caption"],
        "bytes_per_caption": figures["bytes_per_caption"],
    }


def main() -> None:
    """Print a table and, last, one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encode", description=__doc__)
    parser.add_argument("--data", type=Path, default=MINI)
    parser.add_argument("--captions", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    texts, kind = captions(arguments.data, arguments.captions)
    found = measure(texts, arguments.repeats)
    print(f"{len(texts)} {kind}, tokenised, encoded, written as fp16; padded: {SLICE} of them")
    for key, value in found.items():
        print(f"{key:>18} {value:>9}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
