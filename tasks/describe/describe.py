"""Describe stage: a caption for each picture of a folder, and a page that shows them.

captions.parquet   file, text, log_probability (mean over tokens)
captions.csv       file, text: a caption source as it stands (form = "table")
captions.json      MS-COCO's results: image_id (the file), caption
rejects.csv        file, reason: pictures that cannot be read
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE

from models.lazily import lazily
from tasks import pages
from tasks.backbone.loading import load
from tasks.describe.learn import read_captioner
from tasks.images.features import REJECTS, open_features
from tasks.pages import heatmaps
from tasks.places import Place
from tasks.progress import Progress
from tasks.results.caption_scores import caption_scores
from tasks.results.tags import csv_text
from tasks.workspace import Result, Stage, digest_of, recipe_of, run_stage, write_whole

with lazily():
    import torch
    from torch.nn import functional as F

    from models.backbone import Backbone
    from models.captioner import Captioner, Said

if TYPE_CHECKING:
    from tasks.profile import Profile

CAPTIONS: Final = "captions.parquet"
RESULTS: Final = ("captions.parquet", "captions.csv", "captions.json", "rejects.csv", "index.html")
PAGE: Final = "index.html"
CARDS: Final = 120
FEWEST_TO_CENTRE: Final = 50
"""With fewer pictures their mean says more of what they show than of how pictures differ."""
BEFORE_SIGN: Final = re.compile(r"\s+(?=[.,;:!?)]|'(?:s|t|re|ve|m|ll|d)\b)")


@task(name="describe", cache_policy=NO_CACHE, task_run_name="describe {folder}")
def describe_pictures(
    profile: Profile,
    folder: Place,
    pictures: Stage,
    learned: Stage,
    references: Mapping[str, Sequence[str]],
) -> Stage:
    """A caption for each picture, and how near they come to what people wrote, where that is known.

    Args:
        profile: says how.
        folder: of the pictures.
        pictures: their features.
        learned: the decoder.
        references: people's captions by file; of some pictures, or of none.

    """

    def work(out: Path) -> Result:
        return Result(*write_captions(profile, folder, pictures, learned, references, out))

    recipe = recipe_of(
        "describe",
        __name__,
        inputs={
            "images": pictures.digest,
            "captioner": learned.digest,
            "references": digest_of({file: list(texts) for file, texts in references.items()}),
        },
        parameters={
            "folder": folder.name,
            "beam": profile.describe.beam,
            "centred": profile.describe.centred,
        },
    )
    return run_stage(recipe, work)


def write_captions(
    profile: Profile,
    folder: Place,
    pictures: Stage,
    learned: Stage,
    references: Mapping[str, Sequence[str]],
    out: Path,
) -> tuple[dict[str, int], dict[str, Any]]:
    """Write what is said of each picture, as the module's docstring has it; counts and scores."""
    loaded = load(profile)
    captioner, mean = read_captioner(profile, learned)
    features = open_features(pictures)
    files, vectors = features.files, F.normalize(features.pooled(), dim=-1)
    is_centred = profile.describe.centred and len(vectors) >= FEWEST_TO_CENTRE
    if is_centred:
        vectors = recentred(vectors, mean)
    said = say_all(captioner.to(loaded.backbone.device), vectors, profile.describe.beam)
    texts = [text_of(loaded.backbone, one) for one in said]
    rejects = pq.read_table(pictures.file(REJECTS)).to_pylist()
    table = pa.table(
        {
            "file": pa.array(files, pa.string()),
            "text": pa.array(texts, pa.string()),
            "log_probability": pa.array([one.log_probability for one in said], pa.float32()),
        }
    )
    pq.write_table(table, out / CAPTIONS, compression="zstd")
    rows = list(zip(files, texts, strict=True))
    write_whole(out / "captions.csv", csv_text(("file", "text"), rows))
    coco = [{"image_id": file, "caption": text} for file, text in rows]
    write_whole(out / "captions.json", json.dumps(coco, ensure_ascii=False, indent=1) + "\n")
    bad = [(row["file"], row["reason"]) for row in rejects]
    write_whole(out / "rejects.csv", csv_text(("file", "reason"), bad))
    known = [(text, references[file]) for file, text in rows if references.get(file)]
    scores = caption_scores(*map(list, zip(*known, strict=True))) if known else {}
    page = pages.render(
        "descriptions.html",
        folder=folder.name,
        total=len(rows),
        rejects=rejects,
        scores=scores,
        scored=len(known),
        random_weights=loaded.random_weights,
        captions=learned.counts["captions"],
        cards=[
            {
                "file": file,
                "text": text,
                "picture": heatmaps.thumbnail(folder / file, side=200),
                "references": list(references.get(file, ()))[:2],
            }
            for file, text in rows[:CARDS]
        ],
    )
    write_whole(out / PAGE, page)
    counts = {
        "images": len(rows) + len(rejects),
        "images/described": len(rows),
        "images/rejected": len(rejects),
        "images/with_references": len(known),
        "images/centred": len(rows) if is_centred else 0,
    }
    return counts, scores


def recentred(vectors: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Unit vectors [N, d] moved so that their mean is `mean` [d], on the unit sphere again."""
    return F.normalize(vectors - vectors.mean(dim=0) + mean, dim=-1)


def say_all(captioner: Captioner, vectors: torch.Tensor, beam: int) -> list[Said]:
    """What the decoder says of unit vectors [N, d], some at a time."""
    progress = Progress("describe", len(vectors), "pictures")
    said = []
    for some in vectors.split(max(1, 256 // beam)):
        said += captioner.say(some.to(captioner.positions.device), beam=beam)
        progress.add(len(some))
    return said


def text_of(backbone: Backbone, said: Said) -> str:
    """A caption's text: CLIP's tokens are lower case, with a blank before each sign."""
    return BEFORE_SIGN.sub("", backbone.decode(said.tokens)).strip()
