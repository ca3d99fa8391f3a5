"""Zero-shot CLIP, global and dense (METHODS 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.lazily import lazily
from models.method import Method, Scores, Setup, State
from models.templates import PLAIN

with lazily():
    import torch
    from torch import Tensor

    from models.backbone import ImageFeatures
    from models.prompts import class_embeddings
    from models.scoring import dense_zero_shot_scores, global_scores, merged_scores


class ZeroShot(Method):
    """CLIP as it comes (Radford et al., ICML 2021), its dense branch as in TaI-DPT's Table 1.

    The state holds the classes' embeddings, unit length, and CLIP's own scale of logits.

    >>> method = ZeroShot()
    >>> state = method.fit(setup, None)
    >>> sorted(method.score_images(state, images.features, kappa=10.0))
    ['global', 'local', 'merged']

    """

    name = "zero-shot"
    summary = "CLIP as it comes, asked for “a photo of a …”"
    learns_from = "nothing"
    needs = frozenset({"text tower", "dense features"})

    def fit(self, setup: Setup, examples: Any) -> State:
        """Embeddings of “a photo of a {}.”, one per class."""
        del examples
        embeddings = class_embeddings(setup.backbone, setup.names, [PLAIN.format]).cpu()
        scale = torch.tensor(setup.backbone.logit_scale, dtype=torch.float64)
        return {"classes": embeddings, "logit_scale": scale}

    def score_images(self, state: State, features: ImageFeatures, kappa: float) -> Scores:
        """Cosines with the pooled feature, positional embedding included, and with the map's."""
        del kappa
        classes, scale = state["classes"], float(state["logit_scale"])
        of_global = global_scores(features.pooled, classes)
        of_local = dense_zero_shot_scores(features.dense, classes, scale)
        merged = merged_scores(of_global, of_local)
        return {"global": of_global, "local": of_local, "merged": merged}

    def class_vectors(self, state: State) -> Mapping[str, Tensor]:
        """The same embeddings for both branches."""
        return {"global": state["classes"], "local": state["classes"]}

    def shapes(self, classes: int, dim: int) -> Mapping[str, tuple[int, ...]]:
        """See `Method.shapes`."""
        return {"classes": (classes, dim), "logit_scale": ()}
