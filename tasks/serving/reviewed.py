"""A tagger with thresholds that a review has moved."""

import json
import shutil
from pathlib import Path

from tasks.integrity import seal_folder
from tasks.methods.state import CARD
from tasks.serving.registry import tagger_folder
from tasks.serving.tagger import RATE
from tasks.workspace import home, write_whole


def write_reviewed(model: str, thresholds: Path) -> Path:
    """Copy a model's tagger, and give it the thresholds by class of a marks stage's file.

    Returns:
        The folder, as `flows.predict --model` takes it.

    """
    source, out = tagger_folder(model), home() / "reviewed" / thresholds.parent.name
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(source, out)
    card = json.loads((out / CARD).read_text(encoding="utf-8"))
    by_class = json.loads(thresholds.read_text(encoding="utf-8"))
    card["thresholds"] = [by_class[label] for label in card["classes"]]
    # what marks say goes before what captions say
    card.pop(RATE, None)
    write_whole(out / CARD, json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    seal_folder(out, {})
    return out
