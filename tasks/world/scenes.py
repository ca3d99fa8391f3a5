"""Scenes: one to four things on a busy ground, composed and drawn from a seed."""

import functools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tasks.world.glyphs import SEEN, STROKE, Glyph, Thing, mask, things

SIDE: Final = 128
"""A scene's side, in pixels."""
COLOURS: Final = {
    "red": (214, 40, 40),
    "orange": (240, 130, 30),
    "yellow": (245, 205, 50),
    "green": (60, 150, 65),
    "teal": (25, 145, 145),
    "blue": (40, 90, 200),
    "purple": (120, 60, 170),
    "pink": (235, 120, 170),
    "brown": (125, 80, 45),
    "black": (30, 30, 34),
    "white": (245, 245, 242),
    "gray": (130, 132, 138),
}
COUNTS: Final = (0.22, 0.32, 0.28, 0.18)
"""Probabilities of one to four things."""
EXTRA_RATE: Final = 0.08
"""How often a thing is none of the classes."""
REPEAT_RATE: Final = 0.12
"""How often a thing is the same as the one before, drawn again."""
SIZES: Final = ((50, 90), (40, 68), (34, 58), (32, 50))
"""Least and greatest longer side of a thing, by the number of things, in pixels."""
DARK: Final = (24, 24, 28)
LIGHT: Final = (250, 250, 248)
CONTRAST: Final = 95.0
"""Least distance of a thing's colour from the ground's, in RGB weighted as the eye does."""


@dataclass(frozen=True)
class Placed:
    """A thing in a scene."""

    glyph: Glyph
    is_class: bool
    colour: str
    rgb: tuple[int, int, int]
    size: float
    """Longer side of the glyph before it is turned, in pixels."""
    x: float
    """Centre, in pixels from the left."""
    y: float
    """Centre, in pixels from the top."""
    angle: float
    """Degrees counter-clockwise."""
    flipped: bool
    outlined: bool
    shadowed: bool


@dataclass(frozen=True)
class Scene:
    """What a picture shows."""

    ground: str
    """Name of the ground's colour."""
    start: tuple[int, int, int]
    end: tuple[int, int, int]
    """Colours of the ground's gradient."""
    direction: int
    noise: int
    """Standard deviation of the noise, of 255 grey levels."""
    texture: int
    """Seed of clutter and noise."""
    placed: tuple[Placed, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Classes that are shown, sorted."""
        return tuple(sorted({placed.glyph.name for placed in self.placed if placed.is_class}))


def compose(rng: random.Random, *, fonts: Sequence[str] = SEEN, most: int = len(COUNTS)) -> Scene:
    """A scene with at most `most` things drawn by `fonts`, chosen by `rng` alone."""
    classes, extras = _drawable(tuple(fonts))
    ground = rng.choice(list(COLOURS))
    start, end = _shade(rng, COLOURS[ground]), _shade(rng, COLOURS[ground])
    count = rng.choices(range(1, most + 1), COUNTS[:most])[0]
    least, greatest = SIZES[count - 1]
    chosen: list[Thing] = []
    for number in range(count):
        if number and rng.random() < REPEAT_RATE:
            chosen.append(chosen[-1])
        elif number and rng.random() < EXTRA_RATE:
            chosen.append(rng.choice(extras))
        else:
            chosen.append(rng.choice(classes))
    placed: list[Placed] = []
    for thing in chosen:
        colour, rgb = _colour(rng, start, end)
        size = rng.uniform(least, greatest)
        x, y = _place(rng, placed, size)
        placed.append(
            Placed(
                glyph=rng.choice(thing.drawings(fonts)),
                is_class=thing.is_class,
                colour=colour,
                rgb=rgb,
                size=size,
                x=x,
                y=y,
                angle=rng.gauss(0, 14),
                flipped=rng.random() < 0.5,
                outlined=rng.random() < 0.3,
                shadowed=rng.random() < 0.4,
            )
        )
    return Scene(
        ground=ground,
        start=start,
        end=end,
        direction=rng.randrange(8),
        noise=2 * rng.randrange(8),
        texture=rng.getrandbits(32),
        placed=tuple(placed),
    )


def draw(scene: Scene, side: int = SIDE) -> NDArray[np.uint8]:
    """A scene's picture, [side, side, 3] RGB."""
    scale = side / SIDE
    image = Image.composite(
        Image.new("RGB", (side, side), scene.end),
        Image.new("RGB", (side, side), scene.start),
        _ramp(scene.direction, side),
    )
    rng = random.Random(scene.texture)  # noqa: S311 (pictures, not secrets)
    _clutter(image, rng, scene, scale)
    for placed in scene.placed:
        _paste(image, placed, scale)
    pixels = np.asarray(image) + _noise(scene.noise, rng.randrange(8), side)
    return pixels.clip(0, 255).astype(np.uint8)


def box(placed: Placed) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of a thing's ink in the picture, in pixels."""
    shape = _turned(placed, 0, 1.0)
    left, top, right, bottom = shape.getbbox() or (0, 0, shape.width, shape.height)
    x, y = _corner(shape, placed.x, placed.y)
    return max(0, x + left), max(0, y + top), min(SIDE, x + right), min(SIDE, y + bottom)


@functools.cache
def _drawable(fonts: tuple[str, ...]) -> tuple[tuple[Thing, ...], tuple[Thing, ...]]:
    """Things that the fonts can draw: classes, and what is no class."""
    drawable = [thing for thing in things() if thing.drawings(fonts)]
    return (
        tuple(thing for thing in drawable if thing.is_class),
        tuple(thing for thing in drawable if not thing.is_class),
    )


def _shade(rng: random.Random, rgb: Sequence[int]) -> tuple[int, int, int]:
    """A colour nearby, between itself and a paler or a darker one."""
    towards, share = rng.choice((0, 255, 255)), rng.uniform(0.1, 0.55)
    red, green, blue = (round(part + (towards - part) * share) for part in rgb)
    return red, green, blue


def _colour(
    rng: random.Random, start: Sequence[int], end: Sequence[int]
) -> tuple[str, tuple[int, int, int]]:
    """A named colour, jittered, that stands out from both ends of the ground; the best of some."""
    best, clearance = ("black", (0, 0, 0)), -1.0
    for _ in range(12):
        name = rng.choice(list(COLOURS))
        red, green, blue = (min(255, max(0, part + rng.randint(-22, 22))) for part in COLOURS[name])
        rgb = (red, green, blue)
        gap = min(_distance(rgb, start), _distance(rgb, end))
        if gap > clearance:
            best, clearance = (name, rgb), gap
        if clearance > CONTRAST:
            break
    return best


def _distance(one: Sequence[int], other: Sequence[int]) -> float:
    """Distance of two colours, as the eye weighs red, green and blue."""
    return math.sqrt(
        sum(w * (a - b) ** 2 for w, a, b in zip((0.9, 1.7, 0.4), one, other, strict=True))
    )


def _place(rng: random.Random, placed: Sequence[Placed], size: float) -> tuple[float, float]:
    """A centre inside the picture, as far from the others as a few tries find."""
    margin = 0.46 * size
    best, clearance = (SIDE / 2, SIDE / 2), -math.inf
    for _ in range(16):
        x, y = rng.uniform(margin, SIDE - margin), rng.uniform(margin, SIDE - margin)
        gap = min(
            (math.hypot(x - o.x, y - o.y) - 0.5 * (size + o.size) for o in placed), default=math.inf
        )
        if gap > clearance:
            best, clearance = (x, y), gap
        if clearance > 0:
            break
    return best


def _paste(image: Image.Image, placed: Placed, scale: float) -> None:
    """Draw a thing: shadow, outline, then the glyph in its colour."""
    x, y = scale * placed.x, scale * placed.y
    shape = _turned(placed, 0, scale)
    if placed.shadowed:
        _stamp(image, shape.point(_FAINT), DARK, x + 2.5 * scale, y + 2.5 * scale)
    if placed.outlined:
        contrast = LIGHT if sum(placed.rgb) < 360 else DARK
        _stamp(image, _turned(placed, STROKE, scale), contrast, x, y)
    _stamp(image, shape, placed.rgb, x, y)


_FAINT: Final = [value * 2 // 5 for value in range(256)]


def _stamp(
    image: Image.Image, shape: Image.Image, rgb: tuple[int, int, int], x: float, y: float
) -> None:
    image.paste(rgb, _corner(shape, x, y), shape)


def _corner(shape: Image.Image, x: float, y: float) -> tuple[int, int]:
    """Where a shape's upper left pixel goes for its centre to be at (x, y)."""
    return round(x - shape.width / 2), round(y - shape.height / 2)


def _turned(placed: Placed, stroke: int, scale: float) -> Image.Image:
    """The glyph's mask, scaled, mirrored and turned."""
    size = scale * placed.size
    side = 48 if size <= 48 else 96
    source = mask(placed.glyph, round(stroke * side / 96), side)
    scale = size / side
    radians = math.radians(placed.angle)
    cos, sin = math.cos(radians), math.sin(radians)
    width = math.ceil((abs(cos) * source.width + abs(sin) * source.height) * scale) + 2
    height = math.ceil((abs(sin) * source.width + abs(cos) * source.height) * scale) + 2
    mirror = -1 if placed.flipped else 1
    # output pixel -> source pixel
    a, b = mirror * cos / scale, -mirror * sin / scale
    d, e = sin / scale, cos / scale
    c = source.width / 2 - a * width / 2 - b * height / 2
    f = source.height / 2 - d * width / 2 - e * height / 2
    return source.transform(
        (width, height), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR
    )


def _clutter(image: Image.Image, rng: random.Random, scene: Scene, scale: float) -> None:
    """Faint blots, strokes and dots, close to the ground's own colours."""
    pen = ImageDraw.Draw(image)
    for _ in range(rng.randrange(10)):
        base = scene.start if rng.random() < 0.5 else scene.end
        fill = tuple(min(255, max(0, part + rng.randint(-26, 26))) for part in base)
        x, y, reach = (scale * rng.uniform(*ends) for ends in ((0, SIDE), (0, SIDE), (3, 26)))
        kind = rng.randrange(3)
        if kind == 0:
            pen.ellipse((x - reach, y - reach, x + reach, y + reach), fill=fill)
        elif kind == 1:
            turn = rng.uniform(0, math.pi)
            dx, dy = reach * 2 * math.cos(turn), reach * 2 * math.sin(turn)
            pen.line((x - dx, y - dy, x + dx, y + dy), fill=fill, width=rng.randint(1, 4))
        else:
            pen.rectangle((x - reach, y - reach / 2, x + reach, y + reach / 2), fill=fill)


@functools.cache
def _ramp(direction: int, side: int) -> Image.Image:
    """Share of the ground's second colour, mode L, rising in one of eight directions."""
    turn = 2 * math.pi * direction / 8
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    slope = x * math.cos(turn) + y * math.sin(turn)
    return Image.fromarray((255 * (slope - slope.min()) / np.ptp(slope)).astype(np.uint8))


@functools.cache
def _noise(deviation: int, number: int, side: int) -> NDArray[np.int16]:
    """[side, side, 3] of normal noise, one of a few that are made once."""
    normal = np.random.default_rng(number).standard_normal((side, side, 3), dtype=np.float32)
    return (deviation * normal).astype(np.int16)
