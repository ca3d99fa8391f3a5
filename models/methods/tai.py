"""TaI (Guo et al., CVPR 2023): the global prompts of TaI-DPT alone."""

from __future__ import annotations

from collections.abc import Mapping

from models.lazily import lazily
from models.method import Scores, State
from models.methods.tai_dpt import TaIDPT

with lazily():
    from torch import Tensor

    from models.backbone import ImageFeatures
    from models.examples import CaptionBatch
    from models.scoring import global_scores


class TaI(TaIDPT):
    """Global prompts alone; each branch has a loss of its own, so the same training serves both.

    >>> method = TaI(TaI.Settings(contexts=2, epochs=1))
    >>> state = method.learner(setup).state()
    >>> sorted(method.score_images(state, images.features, kappa=10.0))
    ['global', 'merged']

    """

    name = "tai"
    summary = "global prompts alone, learned from captions"
    # dense features are TaI-DPT's, and so is the training that it shares
    needs = TaIDPT.needs - {"dense features"}
    studies = ()

    def score_images(self, state: State, features: ImageFeatures, kappa: float) -> Scores:
        """Cosines with the feature pooled without positions."""
        del kappa
        of_global = global_scores(features.pooled_plain, state["global"])
        return {"global": of_global, "merged": of_global}

    def score_captions(self, state: State, batch: CaptionBatch) -> Scores:
        """As in training."""
        of_global = global_scores(batch.global_, state["global"])
        return {"global": of_global, "merged": of_global}

    def class_vectors(self, state: State) -> Mapping[str, Tensor]:
        """The global prompts."""
        return {"global": state["global"]}
