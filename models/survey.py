"""What a few images, looked at by a person, say of all of them: a stratified probability sample.

Images are sorted by how sure their tags are and cut into strata of equal mass; half of the mass is
spread evenly over images and half over tags, so that no image weighs more than twice the mean and
images with tags are not missed where most have none. Shares are combined ratio estimators with
linearised variances (Särndal, Swensson, Wretman 1992, 5.6); their intervals are Korn and Graubard's
(1998): Clopper and Pearson's for as many independent marks as the variance is worth, which hold at
0 and 1 and for a handful of marks. They are about the images at hand, not about others like them.
"""

from dataclasses import dataclass
from typing import Final

import torch
from scipy.special import betaincinv, stdtrit
from torch import Tensor

PER_STRATUM: Final = 4
"""Images drawn from each stratum; two are the least that a variance can be told from."""
TAIL: Final = 0.025


@dataclass(frozen=True)
class Sample:
    """Images drawn, in an order of which every beginning is a fair sample too."""

    rows: Tensor
    """[n] int64: which images."""
    strata: Tensor
    """[n] int64: the stratum of each."""
    sizes: Tensor
    """[H] int64: images in each stratum, drawn or not."""

    def weights(self) -> Tensor:
        """[n] float64: how many images each one stands for."""
        drawn = torch.bincount(self.strata, minlength=len(self.sizes))
        return (self.sizes.double() / drawn)[self.strata]

    def only(self, places: Tensor) -> "Sample":
        """The sample of those places [m] alone; strata of fewer than two images join a neighbour.

        Fair where the places are not chosen by what the images show, such as the first m.
        """
        strata = self.strata[places]
        drawn = torch.bincount(strata, minlength=len(self.sizes)).tolist()
        joined: list[int] = []
        sizes, counts = [0], [0]
        for size, count in zip(self.sizes.tolist(), drawn, strict=True):
            if not _can_stand(counts[-1], sizes[-1]):
                sizes[-1] += size
                counts[-1] += count
            else:
                sizes.append(size)
                counts.append(count)
            joined.append(len(sizes) - 1)
        if len(sizes) > 1 and not _can_stand(counts[-1], sizes[-1]):
            joined = [min(number, len(sizes) - 2) for number in joined]
            sizes[-2:] = [sizes[-2] + sizes[-1]]
        return Sample(self.rows[places], torch.tensor(joined)[strata], torch.tensor(sizes))


@dataclass(frozen=True)
class Estimate:
    """A share of all images' tags (or of all that they show), by the sample."""

    value: float
    low: float
    high: float
    marks: int
    """Tags (or things shown) in the sample that it rests on."""


def draw_sample(sureness: Tensor, tags: Tensor, count: int, generator: torch.Generator) -> Sample:
    """Draw `count` of N images, or all if there are no more.

    Args:
        sureness: [N] how sure an image's tags are, such as its highest score.
        tags: [N] how many tags each image was given.
        count: images to draw.
        generator: the same one draws the same images.

    """
    images = len(sureness)
    count = min(count, images)
    mass = torch.full((images,), 1 / images, dtype=torch.float64)
    if int(tags.sum()):
        mass = (mass + tags.double() / tags.sum()) / 2
    order = sureness.argsort(descending=True, stable=True)
    parts = max(1, count // PER_STRATUM)
    middles = mass[order].cumsum(dim=0) - mass[order] / 2
    cut = (middles * parts).long().clamp(max=parts - 1)
    # a stratum may be empty where one image has the mass of two
    members = [order[cut == part] for part in cut.unique().tolist()]
    sizes = [len(rows) for rows in members]
    drawn = _allocate(sizes, count)
    shuffled = [rows[torch.randperm(len(rows), generator=generator)] for rows in members]
    places: list[tuple[int, int]] = []
    for turn in range(max(drawn)):
        here = [part for part in range(len(members)) if turn < drawn[part]]
        mixed = torch.randperm(len(here), generator=generator).tolist()
        places += [(here[place], turn) for place in mixed]
    return Sample(
        torch.tensor([int(shuffled[part][turn]) for part, turn in places]),
        torch.tensor([part for part, _ in places]),
        torch.tensor(sizes),
    )


def ratio(sample: Sample, parts: Tensor, wholes: Tensor) -> Estimate | None:
    """Share that `parts` [n] have of `wholes` [n] (counts by image) over all images.

    Returns:
        None if no image of the sample has any of the whole.

    """
    part, whole, weights = parts.double(), wholes.double(), sample.weights()
    total = float((weights * whole).sum())
    if not total:
        return None
    value = float((weights * part).sum()) / total
    is_in = whole > 0
    images, marks = int(is_in.sum()), int(whole.sum())
    # how much of the whole has not been looked at: where all has, nothing is left to guess
    unseen = 1 - min(float(whole.sum()) / total, len(whole) / int(sample.sizes.sum()))
    if not unseen:
        return Estimate(value, value, value, marks)
    variance = _variance(sample, weights * (part - value * whole) / total)
    # images are what was drawn: where nothing varies, each is worth one mark
    worth = images / unseen
    if variance > 0 and 0 < value < 1:
        freedom = max(1, images - 1)
        shrunk = (_quantile(max(1, marks - 1)) / _quantile(freedom)) ** 2
        worth = min(value * (1 - value) / variance * min(1.0, shrunk), marks / unseen)
    return Estimate(value, *_clopper_pearson(value, worth), marks)


def _can_stand(drawn: int, size: int) -> bool:
    """Whether a stratum has a variance: of two images or more, or of none that was not drawn."""
    return drawn > 1 or (drawn == size and size > 0)


def _allocate(sizes: list[int], count: int) -> list[int]:
    """Images to draw from strata of these sizes: as even as they allow."""
    drawn = [0] * len(sizes)
    while sum(drawn) < count:
        open_ = [part for part, size in enumerate(sizes) if drawn[part] < size]
        for part in open_[: count - sum(drawn)]:
            drawn[part] += 1
    return drawn


def _variance(sample: Sample, values: Tensor) -> float:
    """Variance of the sum of weighted values [n] over draws of such samples."""
    found = 0.0
    for part, size in enumerate(sample.sizes.tolist()):
        of_part = values[sample.strata == part]
        drawn = len(of_part)
        if drawn > 1:
            found += (1 - drawn / size) * drawn * float(of_part.var())
    return found


def _quantile(freedom: int) -> float:
    return float(stdtrit(freedom, 1 - TAIL))


def _clopper_pearson(value: float, marks: float) -> tuple[float, float]:
    """Bounds of a share seen in (not necessarily whole) `marks` independent marks."""
    right = value * marks
    wrong = marks - right
    low = float(betaincinv(right, wrong + 1, TAIL)) if value > 0 else 0.0
    high = float(betaincinv(right + 1, wrong, 1 - TAIL)) if value < 1 else 1.0
    return min(low, value), max(high, value)
