"""A COCO-sized training of 20 epochs: measured on a slice, extrapolated to the whole.

One shard of made-up captions is encoded; its copies make a store as large as COCO's; a few steps of
the real training loop take their captions from all over it. Every row is read once besides, so that
the peak memory is that of a whole epoch.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.captions import encode_table, made_up
from benchmarks.memory import most_mb
from benchmarks.plain import RN50
from models.examples import CaptionBatch
from models.method import Setup
from models.methods.tai_dpt import TaIDPT
from tasks.backbone.devices import native_precision
from tasks.backbone.loading import load_backbone
from tasks.captions.encode import CAPTIONS_PER_SHARD
from tasks.captions.features import CaptionFeatures
from tasks.labels.vocabulary import builtin_vocabulary_path, load_vocabulary
from tasks.methods.trainer import train

COCO_CAPTIONS = 118_287
EPOCHS = 20


class Spread:
    """The first captions of an epoch, from all over a store."""

    def __init__(self, captions: CaptionFeatures, count: int) -> None:
        self._captions = captions
        self._rows = torch.randperm(len(captions), generator=torch.manual_seed(0))[:count]

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, rows: torch.Tensor, device: torch.device) -> CaptionBatch:
        """See `models.examples.Examples.batch`."""
        return self._captions.batch(self._rows[rows], device)


def repeat_shard(folder: Path, copies: int) -> None:
    """Make a store of `copies` times as many captions from a store of one shard."""
    source = folder / "shard-00000.arrow"
    rows = pa.ipc.open_file(pa.memory_map(str(source))).get_batch(0)
    first = rows["caption"].to_numpy()
    for number in range(1, copies):
        ids = pa.array(first + number * len(first))
        columns = [ids, *rows.columns[1:]]
        copy = pa.record_batch(columns, schema=rows.schema)
        path = folder / f"shard-{number:05d}.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, copy.schema) as writer:
            writer.write_batch(copy)
    (path,) = folder.glob("part-*.parquet")
    pq.write_table(pa.concat_tables([pq.read_table(path)] * copies), path)


def main() -> None:
    """Print a table and, last, one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.end_to_end", description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=512)
    arguments = parser.parse_args()
    precision = native_precision("cpu")
    backbone = load_backbone(**RN50, precision=precision).backbone
    vocabulary = load_vocabulary(builtin_vocabulary_path("coco2014"))
    texts, labels = made_up(CAPTIONS_PER_SHARD, vocabulary.classes)
    ids = [str(number) for number in range(len(texts))]
    table = pa.table({"caption_id": ids, "text": texts, "classes": labels})
    copies = -(-COCO_CAPTIONS // len(texts))
    ends: list[float] = []

    def on_epoch(epoch: int, figures: Mapping[str, float]) -> None:
        ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "features")
        folder.mkdir()
        start = time.perf_counter()
        encoded = encode_table(table, backbone, folder)
        encode_s = (time.perf_counter() - start) * copies
        repeat_shard(folder, copies)
        captions = CaptionFeatures(folder, [folder], vocabulary.classes, backbone)
        for rows in torch.randperm(len(captions)).split(arguments.batch):
            captions.batch(rows, backbone.device)
        # of two short epochs the second is timed: the first warms up
        method = TaIDPT(TaIDPT.Settings(epochs=2, batch=arguments.batch))
        spread = Spread(captions, arguments.steps * arguments.batch)
        _, _, figures = train(
            method.learner(Setup(backbone, vocabulary.prompt_names)),
            spread,
            torch.arange(len(spread)),
            Path(name),
            seed=0,
            device=backbone.device,
            on_epoch=on_epoch,
        )
        size = sum(path.stat().st_size for path in folder.glob("shard-*.arrow"))
    step_s = (ends[1] - ends[0]) / arguments.steps
    steps = EPOCHS * -(-len(captions) // arguments.batch)
    found = {
        "captions": len(captions),
        "encode_s": round(encode_s),
        "captions_per_s": encoded["captions_per_s"],
        "step_s": round(step_s, 3),
        "train_s": round(steps * step_s),
        "total_min": round((encode_s + steps * step_s) / 60, 1),
        "store_gb": round(size / 1e9, 2),
        "bytes_per_caption": round(size / len(captions)),
        "peak_mb": round(most_mb()),
    }
    print(
        f"{len(captions):,} captions, 80 classes, 16 contexts, RN50's text tower in {precision}, "
        f"{EPOCHS} epochs, batch {arguments.batch}; extrapolated from {len(texts):,} captions "
        f"encoded and {arguments.steps} steps"
    )
    for key, value in found.items():
        print(f"{key:>18} {value:>10}")
    print(f"{'last loss':>18} {figures['loss/train']:>10.4f}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
