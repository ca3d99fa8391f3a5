"""Scores of several methods blended: what text taught, and what labelled images taught."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from models.lazily import lazily
from models.method import Method, MethodSettings, Scores, Setup, State, Study, state_of
from models.studies import BLEND, FEW_SHOT, NOVEL_CLASSES, PARTIAL_LABELS

with lazily():
    import torch
    from torch import Tensor

    from models.backbone import ImageFeatures
    from models.examples import Images

IMAGES_AT_ONCE = 256


class BlendSettings(MethodSettings):
    """Which methods, and how their scores are put together."""

    parts: tuple[str, ...] = Field(
        (),
        description="Methods that stand before it in the run; by default the last that learns from "
        "captions and the last that learns from labelled images.",
    )
    normalise: Literal["matrix", "class"] = Field(
        "matrix",
        description="matrix: min-max of all scores of an image set together, as published; class: "
        "each class's mean and deviation on other images, so that one image alone scores the same.",
    )
    rate: float = Field(
        0.9,
        ge=0,
        le=1,
        description="Weight of the last part, the others share the rest; published are 0.9 "
        "(partial labels) and 0.6 (few shots).",
    )
    reference: int = Field(
        2000, ge=1, description="Unlabelled images that statistics are taken of, at most."
    )


class Blend(Method):
    """(1 - r) A + r B, of scores A and B that are first brought to one scale (TaI-DPT, Figure 5).

    `matrix` needs all images at once: their scores' least and greatest. An image that comes alone
    is scaled by those of the reference images, which `class` is always; no label is read.

    >>> method = Blend(parts=parts)
    >>> state = method.fit(others, labelled)
    >>> sorted(method.score_images(state, images.features, kappa=10.0))
    ['merged']

    """

    name = "blend"
    summary = "scores of other methods of the run, weighted"
    learns_from = "other methods"
    Settings = BlendSettings
    settings: BlendSettings
    studies: ClassVar[tuple[Study, ...]] = (FEW_SHOT, PARTIAL_LABELS, NOVEL_CLASSES, BLEND)

    def builds_on(self, before: Sequence[type[Method]]) -> tuple[str, ...]:
        """The parts that are named, or one of each kind.

        Raises:
            ValueError: they are not there, or fewer than two.

        """
        names = [each.name for each in before]
        parts = self.settings.parts
        if not parts:
            kinds = ("captions", "labelled images")
            last = {each.learns_from: each.name for each in before}
            parts = tuple(last[kind] for kind in kinds if kind in last)
            if len(parts) < 2:
                raise ValueError(
                    f"{self.name} needs a method that learns from captions and one that learns "
                    f"from labelled images before it in `run`, or methods.{self.name}.parts; "
                    f"before it are {', '.join(names) or 'none'}"
                )
        missing = [name for name in parts if name not in names]
        if missing or len(set(parts)) < 2:
            wrong = f"{missing[0]!r} is none of them" if missing else "expected two or more"
            raise ValueError(
                f"methods.{self.name}.parts: {wrong}; before it in `run` are "
                f"{', '.join(names) or 'none'}"
            )
        return parts

    def fit(self, setup: Setup, examples: Images) -> State:
        """The parts' states, and shift and spread of the scores of each, over reference images."""
        state = {
            f"{part.name}/{name}": tensor
            for part in self.parts
            for name, tensor in setup.states[part.name].items()
        }
        count = min(self.settings.reference, len(examples))
        rows = torch.arange(count) * len(examples) // count
        cpu = torch.device("cpu")
        batches = (examples.batch(some, cpu).features for some in rows.split(IMAGES_AT_ONCE))
        return state | self._scales(state, batches, setup.kappa)

    def for_set(self, state: State, batches: Iterable[ImageFeatures], kappa: float) -> State:
        """With the least and greatest score of this very set, as published."""
        if self.settings.normalise == "class":
            return state
        return {**state, **self._scales(state, batches, kappa)}

    def score_images(self, state: State, features: ImageFeatures, kappa: float) -> Scores:
        """The weighted sum of scaled scores."""
        rate, others = self.settings.rate, len(self.parts) - 1
        weights = [(1 - rate) / others] * others + [rate]
        scaled = [
            weight * (scores - state[f"shift/{name}"]) / state[f"spread/{name}"]
            for weight, (name, scores) in zip(
                weights, self._scores(state, features, kappa).items(), strict=True
            )
        ]
        return {"merged": torch.stack(scaled).sum(dim=0)}

    def _scores(self, state: State, features: ImageFeatures, kappa: float) -> dict[str, Tensor]:
        """Merged scores [B, C] of each part."""
        return {
            part.name: part.score_images(state_of(part.name, state), features, kappa)["merged"]
            for part in self.parts
        }

    def _scales(
        self, state: State, batches: Iterable[ImageFeatures], kappa: float
    ) -> dict[str, Tensor]:
        """Shift and spread [C] (by class) or [] (of the matrix) of each part's scores."""
        found = [self._scores(state, features, kappa) for features in batches]
        scales = {}
        for name in found[0]:
            scores = torch.cat([each[name] for each in found]).double()
            if self.settings.normalise == "class":
                shift, spread = scores.mean(dim=0), scores.std(dim=0, correction=0)
            else:
                shift, spread = scores.min(), scores.max() - scores.min()
            scales[f"shift/{name}"] = shift.float()
            scales[f"spread/{name}"] = spread.clamp(min=1e-12).float()
        return scales

    def check_state(self, state: State, classes: int, dim: int) -> None:
        """See `Method.check_state`; each part's state too."""
        super().check_state(state, classes, dim)
        for part in self.parts:
            part.check_state(state_of(part.name, state), classes, dim)
            shape = (classes,) if self.settings.normalise == "class" else ()
            for name in (f"shift/{part.name}", f"spread/{part.name}"):
                if name not in state or tuple(state[name].shape) != shape:
                    raise ValueError(f"no tensor {name!r} of shape {shape}")
