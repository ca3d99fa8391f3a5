"""Ingest of generated captions: MB/s and peak memory as files grow, each in its own process."""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.captions import made_up, made_up_classes
from benchmarks.memory import most_mb
from tasks.corpus.ingest import ingest_file

MB = 1_000_000


def write_narratives(texts: list[str], size: int, out: Path) -> None:
    """Localized narratives as OpenImages has them, `size` bytes of JSON lines."""
    source = random.Random(0)  # noqa: S311
    written = place = 0
    with out.open("w", encoding="utf-8") as file:
        while written < size:
            record = {
                "dataset_id": "open_images_train_v6",
                "image_id": f"{place // 2:016x}",
                "annotator_id": place % 2,
                "caption": " ".join(source.choices(texts, k=5)),
            }
            written += file.write(json.dumps(record) + "\n")
            place += 1


def write_coco(texts: list[str], size: int, out: Path) -> None:
    """A COCO captions file of about `size` bytes: five captions an image."""
    captions = size // 170
    with out.open("w", encoding="utf-8") as file:
        file.write('{"info": {}, "licenses": [], "images": [')
        for image in range(captions // 5 + 1):
            entry = {"license": 3, "file_name": f"COCO_{image:012}.jpg", "height": 480}
            entry |= {"coco_url": f"http://example.org/{image:012}.jpg", "width": 640, "id": image}
            file.write((", " if image else "") + json.dumps(entry))
        file.write('], "annotations": [')
        for place in range(captions):
            entry = {"image_id": place // 5, "id": place, "caption": texts[place % len(texts)]}
            file.write((", " if place else "") + json.dumps(entry))
        file.write("]}")


def one_file(form: str, size: int) -> dict[str, float]:
    """Ingest a generated file of `size` bytes; seconds, MB/s, and the process's peak memory.

    CPU seconds are those of all threads: on a busy machine they tell more than the others.
    """
    texts = made_up(25_000, made_up_classes(80))[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "captions.json"
        (write_coco if form == "coco" else write_narratives)(texts, size, path)
        bytes_ = path.stat().st_size
        start, cpu_start = time.perf_counter(), time.process_time()
        counts = ingest_file(path, form, "made-up", "all", Path(folder))  # type: ignore[arg-type]
        seconds, cpu_s = time.perf_counter() - start, time.process_time() - cpu_start
    assert counts["captions/rejected"] == 0
    return {
        "mb": round(bytes_ / MB),
        "captions": counts["captions/kept"],
        "seconds": round(seconds, 2),
        "cpu_s": round(cpu_s, 2),
        "mb_per_s": round(bytes_ / MB / seconds, 1),
        "peak_mb": round(most_mb()),
    }


def main() -> None:
    """Print a table and, last, one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1000], help="MB")
    parser.add_argument("--forms", nargs="+", default=["coco", "narratives"])
    parser.add_argument("--only", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(one_file(arguments.only, arguments.sizes[0] * MB)))
        return
    print(
        f"{'form':>11} {'MB':>6} {'captions':>10} {'seconds':>8} {'CPU s':>7} {'MB/s':>7} "
        f"{'peak MB':>8}"
    )
    found: dict[str, list[dict[str, float]]] = {}
    for form in arguments.forms:
        for size in arguments.sizes:
            command = [sys.executable, "-m", "benchmarks.ingest", "--only", form]
            done = subprocess.run(  # noqa: S603
                [*command, "--sizes", str(size)], capture_output=True, text=True, check=True
            )
            row = json.loads(done.stdout.splitlines()[-1])
            found.setdefault(form, []).append(row)
            print(
                f"{form:>11} {row['mb']:>6,} {row['captions']:>10,} {row['seconds']:>8.1f} "
                f"{row['cpu_s']:>7.1f} {row['mb_per_s']:>7.1f} {row['peak_mb']:>8,}",
                flush=True,
            )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
