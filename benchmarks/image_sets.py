"""How long it takes to read full-size image sets: VOC2007's, COCO 2014's and NUS-WIDE's test lists.

The trees are synthetic and of the official sizes and layouts; no image is opened.
Run: python -m benchmarks.image_sets
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tasks.images.annotations import read_image_set

OBJECT = (
    "<object><name>{}</name><pose>Left</pose><truncated>1</truncated><difficult>{}</difficult>"
    "<bndbox><xmin>48</xmin><ymin>240</ymin><xmax>195</xmax><ymax>371</ymax></bndbox></object>"
)


def voc2007(root: Path, *, with_lists: bool) -> Path:
    """4,952 images, 20 classes, 3 objects an image."""
    main, xml = root / "ImageSets" / "Main", root / "Annotations"
    main.mkdir(parents=True)
    xml.mkdir()
    images = [f"{number:06d}" for number in range(1, 4953)]
    (main / "test.txt").write_text("\n".join(images))
    marks = np.random.default_rng(0).choice(["-1", " 0", " 1"], (20, 4952), p=[0.9, 0.02, 0.08])
    for label, row in enumerate(marks if with_lists else []):
        lines = (f"{image} {mark}" for image, mark in zip(images, row, strict=True))
        (main / f"class{label}_test.txt").write_text("\n".join(lines))
    for number, image in enumerate(images if not with_lists else []):
        found = "".join(OBJECT.format(f"class{(number + k) % 20}", k % 2) for k in range(3))
        (xml / f"{image}.xml").write_text(f"<annotation><folder>V</folder>{found}</annotation>")
    return main / "test.txt"


def coco2014(root: Path) -> Path:
    """40,504 images, 80 categories, 291,875 objects with boxes and outlines."""
    outline = [round(0.37 * k, 2) for k in range(40)]
    objects = [
        {
            "id": k,
            "image_id": k % 40504,
            "category_id": k % 80,
            "iscrowd": 0,
            "bbox": [1.5, 2.5, 30.25, 40.75],
            "segmentation": [outline],
        }
        for k in range(291_875)
    ]
    content = {
        "images": [{"id": k, "file_name": f"COCO_val2014_{k:012d}.jpg"} for k in range(40504)],
        "categories": [{"id": k, "name": f"category {k}"} for k in range(80)],
        "annotations": objects,
    }
    path = root / "instances_val2014.json"
    path.write_text(json.dumps(content))
    return path


def nuswide(root: Path) -> Path:
    """107,859 images, 81 concepts."""
    (root / "ImageList").mkdir()
    (root / "TrainTestLabels").mkdir()
    path = root / "ImageList" / "TestImagelist.txt"
    path.write_text("\n".join(f"c{k % 700}\\{k:04d}_{k}.jpg" for k in range(107_859)))
    names = [f"concept{k}" for k in range(81)]
    (root / "Concepts81.txt").write_text("\n".join(names))
    shown = np.random.default_rng(0).random((81, 107_859)) < 0.023
    for name, row in zip(names, shown, strict=True):
        lines = "\n".join(np.where(row, "1", "0").tolist())
        (root / "TrainTestLabels" / f"Labels_{name}_Test.txt").write_text(lines)
    return path


def main() -> None:
    """Print a row per image set and, last, one JSON line."""
    sets: dict[str, tuple[str, Callable[[Path], Path], str]] = {
        "voc2007 lists": ("voc2007", lambda r: voc2007(r, with_lists=True), "000001.jpg"),
        "voc2007 xml": ("voc2007", lambda r: voc2007(r, with_lists=False), "000001.jpg"),
        "coco2014": ("coco", coco2014, "COCO_val2014_000000000000.jpg"),
        "nuswide": ("nuswide", nuswide, "c0/0000_0.jpg"),
    }
    found: dict[str, dict[str, float]] = {}
    for name, (form, build, first) in sets.items():
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            annotations, images = build(root), root / "images"
            (images / first).parent.mkdir(parents=True)
            (images / first).touch()
            times = []
            for _ in range(5):
                started = time.perf_counter()
                count = len(read_image_set(form, annotations, images).entries)
                times.append(time.perf_counter() - started)
            seconds = statistics.median(times)
            found[name] = {"images": count, "s": round(seconds, 3)}
            print(f"{name:14s} {count:8,d} images  {seconds:6.2f} s")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
