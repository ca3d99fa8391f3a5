"""The product of a run: a frozen CLIP and a fitted method, that tags images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from models.decisions import FEWEST_IMAGES, TOP, Decisions, decisions_for
from models.lazily import lazily
from models.method import Method
from tasks.backbone.devices import native_precision
from tasks.backbone.loading import LoadedBackbone, load_backbone
from tasks.errors import InputError
from tasks.images.decode import decode
from tasks.methods.state import CARD, STATE, Fitted, read_fitted
from tasks.workspace import digest_of, source_sha256, write_whole

with lazily():
    import torch

RATE: Final = "decision_rate"
THRESHOLDS: Final = "thresholds"
BY_MARKS: Final = "reviewed"
"""The card's field that says whose marks have moved the thresholds."""
KAPPA: Final = 40.0
"""Local softmax's scale on images where the card says nothing (METHODS 1)."""


@dataclass(frozen=True)
class Tagger:
    """A fitted method and the CLIP that it was fitted for."""

    loaded: LoadedBackbone
    fitted: Fitted
    kappa: float
    thresholds: torch.Tensor | None = None
    """[C] scores from which on a class is said to be there, on images of the run's own."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the C classes."""
        return self.fitted.classes

    def decisions(self, top: int | None) -> Decisions:
        """How single images are tagged: the `top` highest, all above the run's thresholds, or 3."""
        return Decisions(self.classes, self.thresholds, top)

    def scores(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        """Merged scores [N, C] of images [3, R, R] as `read_image` makes them."""
        device = self.loaded.backbone.device
        batch = torch.stack(list(images)).to(device, memory_format=torch.channels_last)
        with torch.inference_mode():
            features = self.loaded.backbone.encode_images(batch).to(device)
            state = {name: tensor.to(device) for name, tensor in self.fitted.state.items()}
            branches = self.fitted.method.score_images(state, features, self.kappa)
        return branches["merged"].cpu()

    def read(self, sources: Sequence[Path | bytes]) -> list[torch.Tensor | str]:
        """Each image as a tensor [3, R, R], or why it is none; decoded side by side."""
        with ThreadPoolExecutor() as pool:
            return list(pool.map(lambda source: _read(source, self.loaded.preprocess), sources))


def load_tagger(folder: Path, device: str) -> Tagger:
    """The tagger of a folder with a fitted method, as the fit stage or `write_tagger` leave it.

    Model and weights that the card names by file are looked for in the folder first.

    Raises:
        InputError: a file is missing or is not what it must be.

    """
    fitted = read_fitted(folder)
    card, path = fitted.card, folder / CARD
    try:
        chosen = dict(card["backbone"]) | files_in(folder, card)
        kappa = float(card.get("kappa", KAPPA))
        thresholds = stored_thresholds(card)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a fitted method's card: {error}") from error
    loaded = load_backbone(**chosen, device=device, precision=native_precision(device))
    try:
        fitted.method.check_state(fitted.state, len(fitted.classes), loaded.backbone.dim)
    except ValueError as error:
        raise InputError(f"{folder / STATE}: {error}, for {chosen['model']}") from error
    return Tagger(loaded, fitted, kappa, thresholds)


def files_in(folder: Path, card: Mapping[str, Any]) -> dict[str, str]:
    """Model and weights that a card names by file and that lie in its folder, by field."""
    named = {field: card["backbone"][field] for field in ("model", "pretrained")}
    places = {field: folder / Path(name).name for field, name in named.items() if name}
    return {field: str(place) for field, place in places.items() if place.is_file()}


def digest_of_tagger(folder: Path) -> str:
    """SHA-256 over what a tagger's scores come from; what else lies in its folder is not read.

    Raises:
        InputError: a file is missing or is not what it must be.

    """
    card = read_fitted(folder).card
    decides = (RATE, THRESHOLDS, BY_MARKS)
    try:
        found = files_in(folder, card) | {"state": str(folder / STATE)}
        named = [Path(name) for name in card["backbone"].values() if isinstance(name, str)]
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{folder / CARD}: not a fitted method's card: {error}") from error
    paths = sorted({*map(Path, found.values()), *(path for path in named if path.is_file())})
    return digest_of(
        [
            {name: value for name, value in card.items() if name not in decides},
            [[path.name, source_sha256(path)] for path in paths],
        ]
    )


def stored_thresholds(card: Mapping[str, Any]) -> torch.Tensor | None:
    """[C] thresholds of a model's own images, by its card; None where it has none."""
    if THRESHOLDS not in card:
        return None
    return torch.tensor(card[THRESHOLDS], dtype=torch.float64)


def decisions_of(fitted: Fitted, scores: torch.Tensor, top: int | None) -> Decisions:
    """How images with scores [N, C] are tagged: by the rate, else by what the card stores."""
    found = decisions_for(scores, fitted.classes, rate_of(fitted.card), top)
    return found or Decisions(fitted.classes, stored_thresholds(fitted.card))


def rate_of(card: Mapping[str, Any]) -> float | None:
    """How often one decides for a class, by a model's card."""
    return float(card[RATE]) if RATE in card else None


def told_of(card: Mapping[str, Any], images: int, top: int | None) -> str:
    """In a sentence how `decisions_of` tags so many images."""
    rate, stored = rate_of(card), THRESHOLDS in card
    best = f"each has its {TOP} highest classes"
    if top is not None:
        return f"Each picture has its {top} highest class{'es' if top > 1 else ''}, as asked."
    if rate is not None and images >= FEWEST_IMAGES:
        return (
            f"Thresholds were set for these {images:,} pictures, class by class, by how often "
            f"held-out captions decide for a class ({100 * rate:.1f} percent)."
        )
    if BY_MARKS in card:
        return "Thresholds are those that a review's marks have moved."
    if rate is not None:
        few = f"{images} picture{'s are' if images != 1 else ' is'} too few to set thresholds by"
        then = "those of the model's own images serve" if stored else best
        return f"{few} (that takes {FEWEST_IMAGES}): {then}."
    if stored:
        return "Thresholds are those of the model's own images: it has no rate of captions."
    return f"The model has neither a rate of captions nor thresholds: {best}."


def write_tagger(
    fitted: Path, method: Method, decisions: Mapping[str, Any], out: Path
) -> Path | None:
    """Copy a fit stage's state, and what else it needs to work elsewhere, to `out`.

    Args:
        fitted: the stage's folder.
        method: how it was fitted.
        decisions: what there is of `kappa`, `decision_rate`, and `thresholds` by class.
        out: where to.

    Returns:
        The file of CLIP's weights, which must come to lie there as well; None if they have a tag.

    """
    out.mkdir(parents=True, exist_ok=True)
    card: dict[str, Any] = json.loads((fitted / CARD).read_text(encoding="utf-8"))
    shutil.copyfile(fitted / STATE, out / STATE)
    files = {}
    for field in ("model", "pretrained"):
        source = Path(card["backbone"][field])
        if card["backbone"][field] and source.is_file():
            files[field], card["backbone"][field] = source, source.name
    if "model" in files:
        shutil.copyfile(files["model"], out / files["model"].name)
    # a stage may serve several methods
    card |= {"method": method.name, "summary": method.summary, **decisions}
    if "thresholds" in decisions:
        card["thresholds"] = [decisions["thresholds"][label] for label in card["classes"]]
    write_whole(out / CARD, json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    return files.get("pretrained")


def _read(source: Path | bytes, preprocess: Any) -> torch.Tensor | str:
    image = decode(source)
    if isinstance(image, str):
        return image
    tensor: torch.Tensor = preprocess(image)
    return tensor
