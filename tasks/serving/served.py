"""The tagger as an MLflow model, logged as code (this file) and files: nothing is pickled.

One row per image: `image` (a file's bytes, in JSON as Base64) or `path` (a file below the folder
that the server's owner names by TAI_SERVED_IMAGES). The answer is a row per image: its tags, best
first, as label and score, or the reason why it has none, which costs the other rows nothing.
"""

import base64
import binascii
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

import pandas as pd
import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from tasks.errors import InputError
from tasks.serving.tagger import Tagger, load_tagger

ALLOWED: Final = "TAI_SERVED_IMAGES"
"""Environment variable with the one folder whose files may be asked for by `path`."""
IMAGES_PER_BATCH: Final = 16


class Served(PythonModel):
    """Image paths or bytes in, tags with scores out."""

    tagger: Tagger

    def load_context(self, context: Any) -> None:
        """Load prompts and CLIP from the model's own files."""
        self.tagger = load_tagger(Path(context.artifacts["tagger"]), "cpu")

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Tags of each row's image, or `reason`, why it has none.

        Args:
            context: unused; MLflow hands it over.
            model_input: columns `path` or `image`, one of the two filled in a row.
            params: `top`, the number of tags; 0 for every class above its threshold.

        Raises:
            InputError: `top` is below 0.

        """
        top = int((params or {}).get("top", 0))
        if top < 0:
            raise InputError(f"top {top}: expected a number of tags, or 0 for thresholds")
        sources = _sources(model_input)
        rows: list[dict[str, Any]] = []
        for at in range(0, len(sources), IMAGES_PER_BATCH):
            rows += self._tagged(sources[at : at + IMAGES_PER_BATCH], top or None)
        # as objects: in a column of text pandas makes None a NaN, which is no JSON
        return pd.DataFrame(rows, columns=["tags", "reason"], dtype=object)

    def _tagged(self, sources: Sequence[Path | bytes | str], top: int | None) -> list[Any]:
        """A row per source; one that is text is the reason itself."""
        asked = [source for source in sources if not isinstance(source, str)]
        decoded = iter(self.tagger.read(asked))
        read = [source if isinstance(source, str) else next(decoded) for source in sources]
        images = [image for image in read if isinstance(image, torch.Tensor)]
        scores = iter(self.tagger.scores(images) if images else ())
        decisions = self.tagger.decisions(top)
        return [
            {"tags": [], "reason": image}
            if isinstance(image, str)
            else {"tags": decisions.tags(next(scores)), "reason": None}
            for image in read
        ]


def _sources(rows: pd.DataFrame) -> list[Path | bytes | str]:
    """Where each row's image is, or as text why there is none."""
    columns = [
        rows[name].tolist() if name in rows else [None] * len(rows) for name in ("image", "path")
    ]
    return [_source(image, path) for image, path in zip(*columns, strict=True)]


def _source(image: object, path: object) -> Path | bytes | str:
    if isinstance(image, bytes):
        return image
    if isinstance(image, str):
        try:
            return base64.b64decode("".join(image.split()), validate=True)
        except (binascii.Error, ValueError):
            return "expected an image's bytes as Base64"
    # a cell that was left out of a table comes as not a number
    return allowed(path) if isinstance(path, str) else "expected an image's bytes, or a path"


def allowed(path: str) -> Path | str:
    """The file below the allowed folder, or why it is not opened; never tells what lies outside."""
    folder = os.environ.get(ALLOWED)
    if not folder:
        return (
            "this server opens no paths: send the image's bytes as 'image', or have its owner "
            f"name a folder by {ALLOWED}"
        )
    refused = f"expected a path below the folder that {ALLOWED} names, without '..'"
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts:
        return refused
    root = os.path.realpath(folder)
    try:
        found = os.path.realpath(Path(root, path))
    except (OSError, ValueError):
        # a name that is too long, or with a zero byte
        return refused
    return Path(found) if Path(found).is_relative_to(root) else refused


set_model(Served())
