"""The world on disk, in the official layouts: ordinary readers take it as they take real data.

- `captions/captions_world.json`: MS-COCO captions.
- `captions/narratives_world.jsonl`: OpenImages localized narratives.
- `<set>/instances.json`, `<set>/images/`: MS-COCO instances and the scenes of an image set;
  `<set>/captions.json`: MS-COCO captions of them, five each; nothing learns from those of tests.
- `contact-sheet.png`: the first scenes of the test sets, for the eye.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.progress import Progress
from tasks.workspace import Result, recipe_of, run_stage
from tasks.world.captions import describe
from tasks.world.glyphs import HELD_OUT, SEEN, classes
from tasks.world.scenes import SIDE, Scene, box, compose, draw

if TYPE_CHECKING:
    from tasks.profile import Profile
    from tasks.settings import WorldSettings

NARRATIVES: Final = 0.25
"""Share of the captions that are narratives."""
REFERENCES: Final = 5
"""Captions of each scene that is tested on, as MS-COCO has them."""
SHEET: Final = "contact-sheet.png"
SHEET_COLUMNS: Final = 8
SHEET_ROWS: Final = 3
"""Rows of the contact sheet for each image set."""


@task(name="world", cache_policy=NO_CACHE, task_run_name="world")
def make_world(profile: Profile) -> Profile:
    """The profile with its paths in the rendered world; as it is, if it asks for none."""
    settings = profile.world
    if settings is None:
        return profile

    def work(out: Path) -> Result:
        scenes = 2 * settings.scenes + settings.labelled
        progress = Progress("world", scenes, "scenes")
        return Result(write_world(settings, out, progress.add), {})

    recipe = recipe_of(
        "world",
        __name__,
        inputs={},
        parameters=settings.model_dump() | {"fonts": version("qtawesome")},
    )
    stage = run_stage(recipe, work)
    return profile.model_copy(update={"data": str(stage.folder), "world": None})


def write_world(
    settings: WorldSettings, out: Path, progress: Callable[[int], None] = lambda count: None
) -> dict[str, int]:
    """Write captions and image sets to `out`; the settings alone decide every byte.

    Args:
        settings: seed and sizes.
        out: an empty folder.
        progress: hears of every few scenes drawn.

    Returns:
        Counts of captions and of scenes by image set.

    """
    counts = _write_captions(settings, out / "captions")
    shown: list[Image.Image] = []
    for name, fonts, count in (
        ("same-style", SEEN, settings.scenes),
        ("style-shift", HELD_OUT, settings.scenes),
        ("labelled", SEEN, settings.labelled),
    ):
        drawn = list(_write_images(settings.seed, name, fonts, count, out / name, progress))
        if name != "labelled":
            shown += drawn
        counts[f"scenes/{name}"] = count
    _sheet(shown).save(out / SHEET)
    return counts


def scene_of(seed: int, name: str, number: int, fonts: Sequence[str] = SEEN) -> Scene:
    """Scene `number` of a set, by the world's seed."""
    return compose(random.Random(f"world/{seed}/{name}/{number}"), fonts=fonts)  # noqa: S311


def caption_of(seed: int, number: int) -> str:
    """Caption `number` of the world; its scene is never drawn."""
    scene = scene_of(seed, "captions", number)
    return describe(random.Random(f"world/{seed}/describe/{number}"), scene).text  # noqa: S311


def narrative_of(seed: int, number: int) -> str:
    """Narrative `number` of the world: two sentences about a scene, as people speak."""
    scene = scene_of(seed, "narratives", number)
    rng = random.Random(f"world/{seed}/narrate/{number}")  # noqa: S311
    first, second = (describe(rng, scene).text.rstrip(".") for _ in range(2))
    return f"In this image I can see {first}. There is also {second}."


def _write_captions(settings: WorldSettings, folder: Path) -> dict[str, int]:
    folder.mkdir()
    narratives = round(NARRATIVES * settings.captions)
    sentences = settings.captions - narratives
    coco = {
        "images": [{"id": n, "file_name": f"{n:06d}.png"} for n in range(sentences)],
        "annotations": [
            {"id": n, "image_id": n, "caption": caption_of(settings.seed, n)}
            for n in range(sentences)
        ],
    }
    (folder / "captions_world.json").write_text(json.dumps(coco), encoding="utf-8")
    lines = (
        json.dumps(
            {
                "dataset_id": "world",
                "image_id": f"{n:06d}",
                "annotator_id": 0,
                "caption": narrative_of(settings.seed, n),
            }
        )
        for n in range(narratives)
    )
    (folder / "narratives_world.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"captions/coco": sentences, "captions/narratives": narratives}


def _references(seed: int, name: str, scenes: Sequence[Scene]) -> dict[str, list[dict[str, Any]]]:
    """MS-COCO captions of an image set: what some people might write about each scene."""
    annotations = []
    for number, scene in enumerate(scenes):
        rng = random.Random(f"world/{seed}/refer/{name}/{number}")  # noqa: S311
        annotations += [
            {
                "id": number * REFERENCES + turn,
                "image_id": number,
                "caption": describe(rng, scene).text,
            }
            for turn in range(REFERENCES)
        ]
    images = [{"id": n, "file_name": f"{n:06d}.png"} for n in range(len(scenes))]
    return {"images": images, "annotations": annotations}


def _write_images(
    seed: int,
    name: str,
    fonts: Sequence[str],
    count: int,
    folder: Path,
    progress: Callable[[int], None],
) -> Iterator[Image.Image]:
    """Write one image set; gives back the pictures that the contact sheet takes."""
    (folder / "images").mkdir(parents=True)
    scenes = [scene_of(seed, name, number, fonts) for number in range(count)]

    def write(number: int) -> Image.Image:
        picture = Image.fromarray(draw(scenes[number]))
        picture.save(folder / "images" / f"{number:06d}.png", compress_level=1)
        progress(1)
        return picture

    with ThreadPoolExecutor(2) as pool:
        pictures = list(pool.map(write, range(count)))
    (folder / "instances.json").write_text(json.dumps(_instances(scenes)), encoding="utf-8")
    said = _references(seed, name, scenes)
    (folder / "captions.json").write_text(json.dumps(said), encoding="utf-8")
    yield from pictures[: SHEET_COLUMNS * SHEET_ROWS]


def _instances(scenes: Sequence[Scene]) -> dict[str, list[dict[str, Any]]]:
    """MS-COCO's layout: images, categories, and a box for each thing that is a class."""
    category = {name: number for number, name in enumerate(classes(), start=1)}
    annotations: list[dict[str, Any]] = []
    for number, scene in enumerate(scenes):
        for placed in scene.placed:
            if placed.is_class:
                left, top, right, bottom = box(placed)
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": category[placed.glyph.name],
                        "bbox": [left, top, right - left, bottom - top],
                        "area": (right - left) * (bottom - top),
                        "iscrowd": 0,
                    }
                )
    return {
        "images": [
            {"id": number, "file_name": f"{number:06d}.png", "width": SIDE, "height": SIDE}
            for number in range(len(scenes))
        ],
        "categories": [{"id": number, "name": name} for name, number in category.items()],
        "annotations": annotations,
    }


def _sheet(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures side by side on white, row by row."""
    gap = 6
    step = SIDE + gap
    rows = -(-len(pictures) // SHEET_COLUMNS)
    size = (SHEET_COLUMNS * step + gap, rows * step + gap)
    sheet = Image.fromarray(np.full((size[1], size[0], 3), 255, np.uint8))
    for number, picture in enumerate(pictures):
        row, column = divmod(number, SHEET_COLUMNS)
        sheet.paste(picture, (gap + column * step, gap + row * step))
    return sheet
