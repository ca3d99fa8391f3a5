"""Zero-shot CLIP whose class vectors have lost their mean: the best that needs no training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal

from pydantic import Field

from models.lazily import lazily
from models.method import Method, MethodSettings, Scores, Setup, State, Study
from models.studies import FEW_SHOT, NOVEL_CLASSES, PARTIAL_LABELS
from models.templates import PLAIN, clip_templates

with lazily():
    from torch import Tensor

    from models.backbone import ImageFeatures
    from models.prompts import class_embeddings
    from models.scoring import centred, centred_scores

FEWEST_CLASSES: Final = 10
# where classes are few their mean is one of them: common things stand in
NEUTRAL: Final = (
    "air", "animal", "bag", "book", "bottle", "box", "building", "ceiling", "cloud", "colour",
    "corner", "crowd", "detail", "door", "fence", "field", "floor", "flower", "food", "glass",
    "grass", "ground", "hand", "hill", "house", "kitchen", "lamp", "leaf", "light", "metal",
    "mirror", "paper", "person", "picture", "plant", "plate", "road", "roof", "room", "shadow",
    "shelf", "sky", "stone", "street", "table", "tree", "vehicle", "wall", "water", "window",
)  # fmt: skip


class CentredSettings(MethodSettings):
    """How scores are put together."""

    templates: Literal["plain", "clip"] = Field(
        "plain", description="“a photo of a …” alone, or the mean of CLIP's 80 sentences."
    )
    global_weight: float = Field(
        0.5, ge=0, description="Weight of the whole image's score beside the positions'."
    )
    context: float = Field(
        0.0, ge=0, description="Share of the image's feature mixed into each position's."
    )


class ZeroShotCentred(Method):
    """Cosines with class vectors minus their mean (the feature part of CLIP Surgery, 2304.05653).

    What all classes have in common says nothing about which of them is there, and drowns what
    does. With fewer than ten classes fifty common words join the mean.

    >>> method = ZeroShotCentred()
    >>> state = method.fit(setup, None)
    >>> sorted(method.score_images(state, images.features, kappa=10.0))
    ['global', 'local', 'merged']

    """

    name = "zero-shot-centred"
    summary = "CLIP as it comes, its class vectors without their mean; nothing is trained"
    learns_from = "nothing"
    needs = frozenset({"text tower", "dense features"})
    Settings = CentredSettings
    settings: CentredSettings
    studies: ClassVar[tuple[Study, ...]] = (FEW_SHOT, PARTIAL_LABELS, NOVEL_CLASSES)

    def fit(self, setup: Setup, examples: Any) -> State:
        """Class vectors [C, d] without their mean."""
        del examples
        of_clip = self.settings.templates == "clip"
        templates = clip_templates() if of_clip else [PLAIN.format]
        found = class_embeddings(setup.backbone, setup.names, templates)
        others = None
        if len(setup.names) < FEWEST_CLASSES:
            others = class_embeddings(setup.backbone, NEUTRAL, templates)
        return {"classes": centred(found, others).cpu()}

    def score_images(self, state: State, features: ImageFeatures, kappa: float) -> Scores:
        """The positions' score plus the whole image's, weighted."""
        classes = state["classes"]
        of_global, of_local = centred_scores(
            features.pooled,
            features.dense,
            classes,
            classes,
            kappa=kappa,
            context=self.settings.context,
        )
        merged = of_local + self.settings.global_weight * of_global
        return {"global": of_global, "local": of_local, "merged": merged}

    def class_vectors(self, state: State) -> Mapping[str, Tensor]:
        """The same vectors for both branches."""
        return {"global": state["classes"], "local": state["classes"]}

    def shapes(self, classes: int, dim: int) -> Mapping[str, tuple[int, ...]]:
        """See `Method.shapes`."""
        return {"classes": (classes, dim)}
