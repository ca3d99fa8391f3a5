"""Pairs of a rendered scene and its caption, as the compact CLIP is pre-trained on them."""

import random
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.utils.data import Dataset

from tasks.settings import Settings
from tasks.world import captions, glyphs, scenes

VALIDATION_PAIRS: Final = 512


class PretrainSettings(Settings):
    """What the weights depend on; the defaults are those of the committed ones."""

    model: str = Field("demo/clip.json", description="open_clip's JSON config.")
    seed: int = Field(0, ge=0, description="Seed of weights, scenes and captions.")
    batch: int = Field(256, ge=2, description="Pairs per step.")
    steps: int = Field(1500, ge=1, description="Steps in all.")
    finish: int = Field(
        0, ge=0, description="Last steps: at the full resolution, the rate falling to zero."
    )
    learning_rate: float = Field(1e-3, gt=0, description="AdamW's rate after the first steps.")
    weight_decay: float = Field(0.05, ge=0, description="AdamW's, on matrices and kernels.")
    warmup: int = Field(100, ge=1, description="First steps, in which the rate rises.")
    small_side: int = Field(96, ge=32, description="Side of pictures until the last steps.")
    plain: int = Field(400, ge=0, description="First steps whose captions only name things.")
    one_thing: int = Field(500, ge=0, description="First steps with one thing per scene.")
    two_things: int = Field(700, ge=0, description="First steps with two things at most.")


class Pairs(Dataset[tuple[NDArray[np.uint8], str]]):
    """Scene and caption by number; the number alone decides them, and how many things there are."""

    def __init__(self, name: str, count: int, settings: PretrainSettings, curriculum: bool) -> None:
        self.name, self.count, self.settings = name, count, settings
        self.curriculum = curriculum

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], str]:
        scene = self.scene(number)
        rng = random.Random(f"{self.name}/{self.settings.seed}/{number}/caption")  # noqa: S311
        plain = self.curriculum and number < self.settings.plain * self.settings.batch
        text = captions.name_all(scene) if plain else captions.describe(rng, scene).text
        return scenes.draw(scene, self.side(number)), text

    def side(self, number: int) -> int:
        """How large pair `number` is drawn."""
        settings = self.settings
        is_small = self.curriculum and number < (settings.steps - settings.finish) * settings.batch
        return settings.small_side if is_small else scenes.SIDE

    def scene(self, number: int) -> scenes.Scene:
        """What pair `number` shows."""
        rng = random.Random(f"{self.name}/{self.settings.seed}/{number}/scene")  # noqa: S311
        step = number // self.settings.batch
        most = 4
        if self.curriculum and step < self.settings.two_things:
            most = 1 if step < self.settings.one_thing else 2
        return scenes.compose(rng, most=most)


def validation_pairs(settings: PretrainSettings) -> tuple[Tensor, list[str], Tensor]:
    """Pairs that are never trained on: pictures, captions, labels (for the figures alone)."""
    pairs = Pairs("validation", VALIDATION_PAIRS, settings, curriculum=False)
    drawn = [pairs[number] for number in range(len(pairs))]
    index = {name: column for column, name in enumerate(glyphs.classes())}
    labels = torch.zeros(len(pairs), len(index), dtype=torch.bool)
    for number in range(len(pairs)):
        for name in pairs.scene(number).labels:
            labels[number, index[name]] = True
    pixels = torch.from_numpy(np.stack([picture for picture, _ in drawn]))
    return pixels, [text for _, text in drawn], labels
