"""Drawings of everyday things: glyphs of the icon fonts in the PyPI package QtAwesome.

`glyphs.csv` names, for each thing, its glyphs in five fonts; the fonts make four families, since
FontAwesome 5 and 6 share most drawings. Phosphor is the held-out family: no scene that CLIP or a
prompt learns from shows it.
"""

import csv
import functools
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from tasks.errors import InputError

TABLE: Final = Path(__file__).parent / "glyphs.csv"
FONTS: Final = {
    "fontawesome5": "fontawesome5-solid-webfont*-5.*",
    "fontawesome6": "fontawesome6-solid-webfont*-6.*",
    "material": "materialdesignicons6-webfont*",
    "remix": "remixicon*",
    "phosphor": "phosphor*",
}
SEEN: Final = ("fontawesome5", "fontawesome6", "material", "remix")
HELD_OUT: Final = ("phosphor",)
SIDE: Final = 96
"""Longer side of a mask, in pixels."""
STROKE: Final = 5
"""Width of an outline around a mask, in the mask's pixels."""


@dataclass(frozen=True)
class Glyph:
    """One drawing of one thing."""

    name: str
    """What it shows: a class, or a thing that is no class."""
    font: str
    code: int
    """Code point in the font."""


@dataclass(frozen=True)
class Thing:
    """What can stand in a scene."""

    name: str
    is_class: bool
    glyphs: Mapping[str, tuple[Glyph, ...]]
    """Drawings by font; fonts without one are left out."""

    def drawings(self, fonts: Sequence[str]) -> tuple[Glyph, ...]:
        """Drawings in some of the fonts, the fonts in that order."""
        return tuple(glyph for font in fonts for glyph in self.glyphs.get(font, ()))


@functools.cache
def things() -> tuple[Thing, ...]:
    """Everything that `glyphs.csv` lists, classes first.

    Raises:
        InputError: the installed QtAwesome lacks a font or a glyph.

    """
    charmaps = {font: json.loads(_file(font, ".json").read_text()) for font in FONTS}
    found = []
    with TABLE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            glyphs = {}
            for font, charmap in charmaps.items():
                names = row[font].split()
                missing = [name for name in names if name not in charmap]
                if missing:
                    raise InputError(f"QtAwesome's {font} has no glyph {missing[0]!r}")
                if names:
                    glyphs[font] = tuple(
                        Glyph(row["name"], font, int(charmap[name], 16)) for name in names
                    )
            found.append(Thing(row["name"], row["is_class"] == "yes", glyphs))
    return tuple(found)


def classes() -> tuple[str, ...]:
    """Names of the things that are classes."""
    return tuple(thing.name for thing in things() if thing.is_class)


@functools.cache
def mask(glyph: Glyph, stroke: int, side: int) -> Image.Image:
    """A glyph's coverage, mode L, cut to its ink, with `stroke` added around it.

    The glyph's longer side is `side` pixels, the stroke besides.
    """
    size = side
    for _ in range(3):  # the ink's size is not quite linear in the font's
        font = ImageFont.truetype(_file(glyph.font, ".ttf"), size)
        left, top, right, bottom = font.getbbox(chr(glyph.code))
        size = max(8, round(size * side / max(right - left, bottom - top)))
    width, height = int(right - left) + 2 * stroke, int(bottom - top) + 2 * stroke
    image = Image.new("L", (width, height))
    ImageDraw.Draw(image).text(
        (stroke - left, stroke - top), chr(glyph.code), fill=255, font=font, stroke_width=stroke
    )
    return image


@functools.cache
def _file(font: str, suffix: str) -> Path:
    """A font's file in the installed package, which is not imported: that would ask for Qt."""
    package = importlib.util.find_spec("qtawesome")
    if package is None or not package.submodule_search_locations:
        raise InputError(
            "the package QtAwesome is not installed; its fonts draw the world's scenes"
        )
    folder = Path(package.submodule_search_locations[0], "fonts")
    matches = sorted(folder.glob(FONTS[font] + suffix))
    if len(matches) != 1:
        raise InputError(f"{folder}: expected one file {FONTS[font]}{suffix}, found {len(matches)}")
    return matches[0]
