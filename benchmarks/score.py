"""Scores of both branches against a bare `encode_image` loop, then again from cached features.

Made-up photographs of COCO's size, RN50 at 224 pixels, 80 classes. Both ways decode, resize and
encode the same files in batches of the same size; ours writes the features and scores besides.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

from benchmarks.plain import RN50
from benchmarks.timing import medians
from models.methods.tai_dpt import TaIDPT
from tasks.backbone.devices import native_precision
from tasks.backbone.loading import create_backbone, load_backbone
from tasks.images.encode import tower_of
from tasks.images.features import StoredFeatures
from tasks.images.parts import IMAGES_PER_BATCH, Part, write_part
from tasks.images.stored import CONTENTS, Rows
from tasks.progress import Progress


def made_up_photographs(folder: Path, count: int) -> list[str]:
    """Names of `count` JPEGs of 640 x 480 pixels: smooth colours and some noise."""
    random = np.random.default_rng(0)
    files = [f"{number:06d}.jpg" for number in range(count)]
    for file in files:
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((640, 480), Image.Resampling.BICUBIC), dtype=np.int16)
        noise = random.integers(-12, 13, smooth.shape, dtype=np.int16)
        pixels = np.clip(smooth + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / file, quality=90)
    return files


def main() -> None:
    """Print a table and, last, one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.score", description=__doc__)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    precision = native_precision("cpu")
    bare_clip = create_backbone(**RN50).backbone.clip
    loaded = load_backbone(**RN50, precision=precision)
    prompts = torch.randn(2, 80, loaded.backbone.dim, generator=torch.manual_seed(0))
    method, state = TaIDPT(), {"global": prompts[0], "local": prompts[1]}

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        files = made_up_photographs(root, arguments.images)
        part, features = Part(root, tuple(files), tuple(files)), root / "features"

        def bare() -> None:
            for start in range(0, len(files), IMAGES_PER_BATCH):
                batch = [
                    loaded.preprocess(Image.open(root / file))
                    for file in files[start : start + IMAGES_PER_BATCH]
                ]
                pixels = torch.stack(batch).to(memory_format=torch.channels_last)
                with torch.inference_mode():
                    bare_clip.encode_image(pixels)

        def cached() -> None:
            rows = Rows([features], pq.read_table(features / CONTENTS)["digest"])
            for of_batch in StoredFeatures(files, rows).batches():
                method.score_images(state, of_batch, 40.0)

        def first() -> None:
            for shard in features.glob("shard-*"):
                shard.unlink()
            progress = Progress("images", len(files), "images")
            write_part(part, lambda: tower_of(loaded), features, progress)
            cached()

        features.mkdir()
        bare_s, first_s, cached_s = medians(bare, first, cached, repeats=arguments.repeats)

    found = {
        "images": len(files),
        "encode_image_s": round(bare_s, 3),
        "both_branches_s": round(first_s, 3),
        "ratio": round(first_s / bare_s, 3),
        "cached_s": round(cached_s, 4),
        "cached_ratio": round(first_s / cached_s, 1),
    }
    print(f"{arguments.images} JPEGs of 640 x 480, RN50 at 224, batches of {IMAGES_PER_BATCH}")
    for key, value in found.items():
        print(f"{key:>18} {value:>9}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
