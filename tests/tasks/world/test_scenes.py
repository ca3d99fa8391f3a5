"""Scenes are what their description says, and the seed alone decides them."""

import random
from dataclasses import replace

import numpy as np
import pytest

from tasks.world import scenes
from tasks.world.glyphs import HELD_OUT, SEEN, classes, mask, things


def scene_of(number: int, fonts: tuple[str, ...] = SEEN) -> scenes.Scene:
    return scenes.compose(random.Random(f"test/{number}"), fonts=fonts)


def test_the_seed_alone_decides_a_picture() -> None:
    first = [scenes.draw(scene_of(number)).tobytes() for number in range(8)]
    mask.cache_clear()
    random.seed(5)
    np.random.default_rng(5)
    assert [scenes.draw(scene_of(number)).tobytes() for number in range(8)] == first
    assert len(set(first)) == 8


@pytest.mark.parametrize("side", [96, 128])
def test_a_picture_has_the_side_that_is_asked_for(side: int) -> None:
    picture = scenes.draw(scene_of(0), side)
    assert picture.shape == (side, side, 3)
    assert picture.dtype == np.uint8


def test_one_to_four_things_stand_inside() -> None:
    counts = set()
    for number in range(300):
        scene = scene_of(number)
        counts.add(len(scene.placed))
        for placed in scene.placed:
            assert 0 < placed.x < scenes.SIDE
            assert 0 < placed.y < scenes.SIDE
        assert set(scene.labels) <= set(classes())
    assert counts == {1, 2, 3, 4}


def test_the_held_out_family_is_never_seen() -> None:
    fonts = {placed.glyph.font for n in range(300) for placed in scene_of(n).placed}
    assert fonts == set(SEEN)
    shifted = {placed.glyph.font for n in range(300) for placed in scene_of(n, HELD_OUT).placed}
    assert shifted == set(HELD_OUT)


def test_every_class_has_two_families_of_drawings() -> None:
    families = {"fontawesome5": "fontawesome", "fontawesome6": "fontawesome"}
    named = [thing for thing in things() if thing.is_class]
    assert len(named) == 72
    for thing in named:
        assert len({families.get(font, font) for font in thing.glyphs}) >= 2, thing.name
        assert thing.drawings(SEEN), thing.name


@pytest.mark.parametrize("number", range(12))
def test_ink_is_where_the_box_says(number: int) -> None:
    scene = scene_of(number)
    bare = replace(scene.placed[0], outlined=False, shadowed=False)
    without = scenes.draw(replace(scene, placed=()))
    changed = (scenes.draw(replace(scene, placed=(bare,))) != without).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    left, top, right, bottom = scenes.box(bare)
    assert abs(columns[0] - left) <= 1
    assert abs(rows[0] - top) <= 1
    assert abs(columns[-1] + 1 - right) <= 1
    assert abs(rows[-1] + 1 - bottom) <= 1


def test_a_thing_stands_out_from_its_ground() -> None:
    clear = 0
    for number in range(200):
        scene = scene_of(number)
        bare = replace(scene.placed[0], outlined=False, shadowed=False)
        quiet = replace(scene, noise=0, placed=())
        without = scenes.draw(quiet).astype(float)
        with_it = scenes.draw(replace(quiet, placed=(bare,))).astype(float)
        difference = np.abs(with_it - without).max(axis=2)
        clear += bool(difference.max() > 40)
    assert clear >= 198
