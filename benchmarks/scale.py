"""docs/scale.md: what large corpora cost, computed from the figures that benchmarks have recorded.

python -m benchmarks.scale
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from benchmarks.record import ROOT, recorded
from tasks.captions.partitions import CAPTIONS_PER_PARTITION
from tasks.images.parts import IMAGES_PER_PART

PAGE: Final = ROOT / "docs" / "scale.md"
SIZES: Final = (10**6, 10**8, 10**10)
BATCH: Final = 512
FEATURE_BYTES: Final = 2 * 1024 * (1 + 1 + 49)
"""RN50 at 224 pixels: two global features and 49 positions, fp16."""
PICTURE_BYTES: Final = 160_000
"""A picture of COCO's."""
CAPTION_BYTES: Final = 250
"""A caption in COCO's JSON."""
GPU_IMAGES_PER_S: Final = 2_000
TEXT: Final = """\
# What scale costs

Made by `python -m benchmarks.scale` from `benchmarks/figures.jsonl`; every figure below is one of
those times a count. RN50 at 224 pixels, 80 classes. Measured on {machine}. Nothing here was run
at this size.

## Images

One image costs {image_ms:.1f} core-milliseconds (decoded, both branches, features written) and
{feature_kb:.0f} kB; partitions have {images_per_part:,} images. Besides its work a partition
costs {task_ms:.1f} ms of Prefect's server and this process ({tasks:,} empty tasks), {made_ms:.2f}
ms to be written as a stage, and {read_ms:.2f} ms to be looked at by each later run.

| images | core-hours | GPU-hours* | features | read | partitions | scheduler | looked at |
|---|---|---|---|---|---|---|---|
{image_rows}

\\* at {gpu:,} images a second, which is an assumption: no GPU was at hand; `python -m
benchmarks.score` measures it.

## Captions

A caption costs {ingest_us:.0f} core-microseconds to be read, {label_us:.1f} to be labelled,
{encode_ms:.2f} core-milliseconds to be encoded (both branches), and {caption_kb:.1f} kB once
encoded (methods that read one vector a caption: 2 kB). An epoch of TaI-DPT costs {epoch_ms:.2f}
core-milliseconds a caption.

| captions | read | labelled | encoded | an epoch | raw text | features | partitions |
|---|---|---|---|---|---|---|---|
{caption_rows}

(core-hours but for the last three)

## Where it stops first

- **1 million** of both: one machine, {one_day}.
- **100 million**: the images' core-hours want a cluster (`runner = "dask"`, workers that share
  `TAI_HOME`); two workers do {dask:.2f} times what one does. Features no longer fit one disk;
  captions' do not have to: past `captions.store_gb` they are encoded anew at each step.
- **10,000 million**: the first thing to break is the scheduler. One Prefect server hands
  out a task in {task_ms:.1f} ms, {schedule} for the first pass over images, and so feeds
  {fed:,.0f} workers at most ({part_s:.0f} core-seconds a partition). Partitions of
  {bigger:,} images instead of {images_per_part:,} take a hundredth of that. Then come the
  manifests: each later run opens every partition's, {look}, which larger partitions shorten
  alike. An object store is asked once an image: packing pictures in archives is what helps.
  MLflow does not grow with the corpus: a run logs as many rows for a thousand captions as
  for a thousand million.

A refresh with 1 % new captions costs {refresh:.1%} of a full build; a folder with 1 % new
pictures, small ones that a small CLIP sees, {grown:.1%} of the first pass (a larger CLIP:
less), so that after the first night what counts is what is new.
"""


def page(lines: Iterable[Mapping[str, Any]]) -> str:
    """The page's text.

    Raises:
        KeyError: a benchmark has not been recorded.

    """
    last = {line["benchmark"]: line for line in lines}
    figures = {name: line["figures"] for name, line in last.items()}
    where = last["score"]["machine"]
    cores = where["cores"]
    image_s = figures["score"]["both_branches_s"] * cores / figures["score"]["images"]
    ingest, labels = figures["ingest"]["coco"][-1], figures["labels"]["growth"][-1]
    each = {
        "ingest": ingest["cpu_s"] / ingest["captions"],
        "label": labels["cpu_seconds"] / labels["captions"],
        "encode": cores / figures["encode"]["fast_per_s"],
        "epoch": cores * figures["end_to_end"]["step_s"] / BATCH,
    }
    scheduler = figures["scheduler"][-1]
    task_s, read_s = scheduler["task_ms"] / 1000, scheduler["stage_read_ms"] / 1000
    caption_bytes = figures["end_to_end"]["bytes_per_caption"]
    parts = {size: -(-size // IMAGES_PER_PART) for size in SIZES}
    image_rows = [
        f"| {size:,} | {_hours(size * image_s)} | {_hours(size / GPU_IMAGES_PER_S)} "
        f"| {_bytes(size * FEATURE_BYTES)} | {_bytes(size * PICTURE_BYTES)} | {parts[size]:,} "
        f"| {_time(parts[size] * task_s)} | {_time(parts[size] * read_s)} |"
        for size in SIZES
    ]
    caption_rows = [
        f"| {size:,} | "
        + " | ".join(_hours(size * seconds) for seconds in each.values())
        + f" | {_bytes(size * CAPTION_BYTES)} | {_bytes(size * caption_bytes)} "
        f"| {-(-size // CAPTIONS_PER_PARTITION):,} |"
        for size in SIZES
    ]
    one_day = 10**6 * (image_s + sum(each.values()) + 19 * each["epoch"]) / cores
    part_s = IMAGES_PER_PART * image_s
    return TEXT.format(
        machine=f"{cores} cores of an {where['processor']} in {where['precision']}",
        image_ms=1000 * image_s,
        feature_kb=FEATURE_BYTES / 1000,
        images_per_part=IMAGES_PER_PART,
        task_ms=scheduler["task_ms"],
        tasks=scheduler["partitions"],
        made_ms=scheduler["stage_made_ms"],
        read_ms=scheduler["stage_read_ms"],
        gpu=GPU_IMAGES_PER_S,
        image_rows="\n".join(image_rows),
        ingest_us=1e6 * each["ingest"],
        label_us=1e6 * each["label"],
        encode_ms=1e3 * each["encode"],
        epoch_ms=1e3 * each["epoch"],
        caption_kb=caption_bytes / 1000,
        caption_rows="\n".join(caption_rows),
        one_day=f"{_time(one_day)} with 20 epochs",
        dask=figures["image_parts"]["dask"]["ratio"],
        schedule=_time(parts[SIZES[-1]] * task_s),
        look=_time(parts[SIZES[-1]] * read_s),
        bigger=100 * IMAGES_PER_PART,
        fed=part_s / task_s,
        part_s=part_s,
        refresh=figures["refresh"]["share"],
        grown=figures["image_parts"]["growth"]["share"],
    )


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"


def _time(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.1f} s"


def _bytes(count: float) -> str:
    for unit, size in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e6:.3g} MB"


def main() -> None:
    """Write the page."""
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(recorded()), encoding="utf-8")


if __name__ == "__main__":
    main()
