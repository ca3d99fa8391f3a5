"""Images in partitions: what a grown folder costs, and what a second Dask worker brings.

Growth: pictures of 64 x 64 pixels by the demo's CLIP, then the same folder with 1 % new, each pass
in a process of its own, once it has CLIP in memory. Workers: RN50 at 224 pixels (random weights) in
partitions, by a Dask cluster of one and of two processes of one thread, after each has worked on a
partition to warm up.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from distributed import Client, LocalCluster
from PIL import Image
from prefect import flow

from benchmarks.plain import RN50
from benchmarks.score import made_up_photographs
from flows.images import work_ahead
from flows.server import server
from tasks.backbone.loading import load
from tasks.images import parts
from tasks.images.encode import FeatureEncoder, encode_pictures
from tasks.images.features import open_features
from tasks.images.parts import pictures_of
from tasks.profile import Profile, load_profile

PER_PART: Final = 32
"""Images in a partition where workers are counted; a thousand in use."""


def small_pictures(folder: Path, first: int, count: int) -> None:
    """Pictures of smooth colours, no two alike."""
    for number in range(first, first + count):
        random = np.random.default_rng(number)
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{number:06}.png")


def files_in(folder: Path) -> list[str]:
    """Names of a folder's files."""
    return sorted(path.name for path in folder.iterdir())


def encode(folder: Path, profile: Profile) -> str:
    """Digest of the features of a folder's pictures."""
    stage = encode_pictures(profile, pictures_of(folder, files_in(folder)))
    assert len(open_features(stage)) == len(files_in(folder))
    return stage.digest


def one_pass(folder: Path) -> float:
    """Seconds that a new process needs for a folder's features, once it has CLIP in memory."""
    command = [sys.executable, "-m", __spec__.name, "--only", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    return float(done.stdout.split()[-1])


def growth(root: Path, images: int) -> dict[str, float]:
    """Seconds of a first pass, of one with nothing new, and of one with 1 % new."""
    os.environ["TAI_HOME"] = str(root / "home")
    folder = root / "small"
    folder.mkdir()
    small_pictures(folder, 0, images)
    # the clock's coarsest tick, within which no file's content is remembered
    time.sleep(3)
    first, nothing = one_pass(folder), one_pass(folder)
    small_pictures(folder, images, images // 100)
    time.sleep(3)
    grown = one_pass(folder)
    return {
        "images": images,
        "first_s": round(first, 2),
        "nothing_new_s": round(nothing, 2),
        "grown_s": round(grown, 2),
        "share": round(grown / first, 4),
    }


@flow
def by_dask(folder: Path, files: list[str], profile: Profile) -> None:
    """Features of some pictures by the cluster at $TAI_RUNNER_ADDRESS."""
    work_ahead(FeatureEncoder(profile), [pictures_of(folder, files)], "dask")


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def with_workers(workers: int, root: Path, images: int) -> tuple[float, str]:
    """Seconds of a cluster with so many workers of one thread, and the features' digest."""
    os.environ["TAI_HOME"] = str(root / f"home-{workers}")
    profile = load_profile("demo", {"runner": "dask", "backbone": {"model": RN50["model"]}})
    folder = root / "photographs"
    warm, files = files_in(folder)[images:], files_in(folder)[:images]
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        os.environ["TAI_RUNNER_ADDRESS"] = cluster.scheduler_address
        client.run(os.environ.update, {"OMP_NUM_THREADS": "1"})
        by_dask(folder, warm, profile)
        seconds = timed(lambda: by_dask(folder, files, profile))
    return seconds, encode_pictures(profile, pictures_of(folder, files)).digest


def workers(root: Path, images: int) -> dict[str, float]:
    """What two workers bring over one; the same bytes."""
    folder = root / "photographs"
    folder.mkdir()
    parts.IMAGES_PER_PART = PER_PART  # type: ignore[misc]
    made_up_photographs(folder, images + 4 * PER_PART)
    (one_s, one), (two_s, two) = (with_workers(count, root, images) for count in (1, 2))
    assert one == two
    return {
        "images": images,
        "one_worker_s": round(one_s, 2),
        "two_workers_s": round(two_s, 2),
        "ratio": round(one_s / two_s, 2),
    }


def main() -> None:
    """Print a table and, last, one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.image_parts", description=__doc__)
    parser.add_argument("--small", type=int, default=10_000, help="small pictures")
    parser.add_argument("--large", type=int, default=512, help="photographs for RN50")
    parser.add_argument("--only", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        profile = load_profile("demo", {})
        load(profile)
        print(timed(lambda: encode(arguments.only, profile)))
        return
    # a worker has one thread, and so have the libraries beneath it
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name, server():
        root = Path(name)
        found = {"growth": growth(root, arguments.small), "dask": workers(root, arguments.large)}
    for what, row in found.items():
        print(what)
        for field, value in row.items():
            print(f"{field:>18} {value:>9,}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
