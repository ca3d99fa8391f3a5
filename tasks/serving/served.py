"""The tagger as an MLflow model, logged as code (this file) and files: nothing is pickled.

One row per image: `path` (a file that the server can read) or `image` (a file's bytes). The answer
is a row per image: its tags, best first, as label and score.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from tasks.errors import InputError
from tasks.serving.tagger import Tagger, load_tagger


class Served(PythonModel):
    """Image paths or bytes in, tags with scores out."""

    tagger: Tagger

    def load_context(self, context: Any) -> None:
        """Load prompts and CLIP from the model's own files."""
        self.tagger = load_tagger(Path(context.artifacts["tagger"]), "cpu")

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Tags of each row's image.

        Args:
            context: unused; MLflow hands it over.
            model_input: columns `path` or `image`, one of the two filled in a row.
            params: `top`, the number of tags; 0 for every class above its threshold.

        Raises:
            InputError: a row has no image, or one that cannot be read.

        """
        images = []
        for number, source in enumerate(_sources(model_input)):
            (image,) = self.tagger.read([source])
            if isinstance(image, str):
                raise InputError(f"row {number}: {image}")
            images.append(image)
        scores = self.tagger.scores(images)
        top = int((params or {}).get("top", 0)) or None
        decisions = self.tagger.decisions(top)
        return pd.DataFrame({"tags": [decisions.tags(row) for row in scores]})


def _sources(rows: pd.DataFrame) -> list[Path | bytes]:
    sources: list[Path | bytes] = []
    for number, row in enumerate(rows.to_dict("records")):
        path, image = row.get("path"), row.get("image")
        if isinstance(image, bytes):
            sources.append(image)
        elif isinstance(path, str):
            sources.append(Path(path))
        else:
            raise InputError(f"row {number}: expected a path or an image's bytes")
    return sources


set_model(Served())
