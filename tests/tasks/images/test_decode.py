"""The one decoder: upright, eight bits, on white; nothing that a decoder raises gets past it."""

import io
import os
import random
import socket
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.spoiled import WRITTEN, spoil, written
from tasks.errors import InputError
from tasks.images.annotations import read_image_set
from tasks.images.decode import TURNS, content_sha256, decode
from tasks.images.folders import files_of
from tasks.pages.heatmaps import thumbnail

RNG = np.random.default_rng(0)
PLAIN = np.kron(RNG.integers(0, 255, (6, 9, 3)), np.ones((8, 8, 1))).astype(np.uint8)
GREY = np.kron(RNG.integers(0, 255, (6, 9)), np.ones((8, 8))).astype(np.uint8)


def pixels(source: Path | bytes) -> np.ndarray:
    image = decode(source)
    assert isinstance(image, Image.Image), image
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP", "MPO", "AVIF"])
def test_turned_pictures_come_out_upright(form: str, orientation: int) -> None:
    # what a camera held that way stores: the turn that undoes it, undone
    upright = Image.fromarray(PLAIN)
    back = {5: 5, 7: 7, 6: 8, 8: 6}.get(orientation, orientation)
    turn = TURNS.get(back)
    stored = upright if turn is None else upright.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if form == "WEBP" else {"quality": 95} if form != "PNG" else {}
    found = pixels(saved(stored, form, exif=exif, **options))
    assert found.shape == PLAIN.shape
    assert np.abs(found - PLAIN).mean() < 12


@pytest.mark.parametrize("exif", [b"Exif\0\0Exif\0\0II*\0\x08\0\0\0", b"Exif\0\0MM", b"\xff" * 40])
def test_spoiled_exif_leaves_the_picture(exif: bytes) -> None:
    assert pixels(saved(Image.fromarray(PLAIN), "PNG", exif=exif)).shape == PLAIN.shape


def deep(values: np.ndarray) -> bytes:
    return saved(Image.fromarray(values), "TIFF")


@pytest.mark.parametrize(
    "source",
    [
        saved(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"),
        deep(GREY.astype(np.uint16) * 257),
        deep(GREY.astype(np.uint16) * 16),
        deep(GREY.astype(np.int32)),
        deep(GREY.astype(np.int32) * 257),
        deep((GREY / 255).astype(np.float32)),
        deep(GREY.astype(np.float32)),
    ],
    ids=["16-bit png", "16-bit tiff", "12 bits in 16", "8 in 32", "16 in 32", "0 to 1", "0 to 255"],
)
def test_deep_greys_come_out_as_their_eight_bit_twin(source: bytes) -> None:
    assert np.abs(pixels(source) - GREY[..., None]).max() <= 1


def test_values_of_any_range_are_stretched() -> None:
    values = np.linspace(-3e6, 5e9, 64, dtype=np.float32).reshape(8, 8)
    values[0, :3] = np.nan, np.inf, -np.inf
    found = pixels(deep(values))
    assert found[0, 0, 0] == found[0, 2, 0] == 0
    assert found[0, 1, 0] == found[-1, -1, 0] == 255
    assert "finite" in str(decode(deep(np.full((4, 4), np.nan, np.float32))))


def test_clear_is_white_in_every_mode() -> None:
    alpha = np.zeros((48, 72), np.uint8)
    alpha[:, 36:] = 255
    coloured = Image.fromarray(np.dstack([PLAIN, alpha]))
    grey = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha)])
    palette = Image.fromarray(np.where(alpha, 1, 0).astype(np.uint8), "P")
    palette.putpalette([0, 0, 0, 10, 20, 30])
    black = Image.fromarray(np.where(alpha[..., None], PLAIN | 1, 0).astype(np.uint8))
    for source in (
        saved(coloured, "PNG"),
        saved(coloured, "WEBP", lossless=True),
        saved(coloured, "TIFF"),
        saved(grey, "PNG"),
        saved(palette, "GIF", transparency=0),
        saved(palette, "PNG", transparency=0),
        saved(black, "PNG", transparency=(0, 0, 0)),
    ):
        found = pixels(source)
        assert (found[:, :36] == 255).all()
        assert (found[:, 36:] != 255).any()
    assert (pixels(saved(coloured, "PNG"))[:, 36:] == PLAIN[:, 36:]).all()


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB", "L", "1", "P"])
def test_other_modes_are_what_pillow_makes_of_them(mode: str) -> None:
    if mode == "LAB":
        flat = Image.new("LAB", (8, 8), (136, 128, 128))
        found = pixels(saved(flat, "TIFF"))
        assert np.ptp(found) <= 3
        assert abs(found.mean() - 128) < 10
        return
    image = Image.fromarray(PLAIN).convert(mode)
    source = saved(image, "JPEG" if mode == "YCbCr" else "TIFF")
    with Image.open(io.BytesIO(source)) as opened:
        assert (pixels(source) == np.asarray(opened.convert("RGB"))).all()


def test_odd_files_have_a_reason_each(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "sub" / "folder.jpg").mkdir(parents=True)
    plain = saved(Image.fromarray(PLAIN), "JPEG")
    (folder / "none").write_bytes(plain)
    (folder / "other.dat").write_bytes(saved(Image.fromarray(PLAIN), "AVIF"))
    (folder / "a:b.jfif").write_bytes(plain)
    (folder / "sub" / "folder.jpg" / "in.webp").write_bytes(plain)
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    (folder / "sub" / "loop").symlink_to(folder)
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "iphone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0" + bytes(90))
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.jpg").write_bytes(plain)
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg")).write_bytes(plain)
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket.gif"))
    found = files_of(folder)
    assert found.passed_over == {".txt": 1, ".jpg": 1}
    reasons = {
        file: image if isinstance(image := decode(folder / file), str) else ""
        for file in found.pictures
    }
    expected = {
        "a:b.jfif": "",
        "caf\\xe9.jpg": "not UTF-8",
        "dangling.png": "a link to nothing",
        "empty.jpg": "an empty file",
        "iphone.heic": "HEIC",
        "none": "",
        "other.dat": "",
        "pipe.png": "a pipe",
        "socket.gif": "a pipe, socket",
        "sub/folder.jpg": "a folder",
        "sub/folder.jpg/in.webp": "",
    }
    assert list(reasons) == sorted(expected)
    for file, reason in reasons.items():
        assert (expected[file] in reason) if expected[file] else not reason, (file, reason)
        assert (content_sha256(folder / file) is None) == (
            file not in ("empty.jpg", "iphone.heic") and bool(reason)
        )
    entries = read_image_set("folder", None, folder).entries
    assert [entry.file for entry in entries] == found.pictures


def test_a_folder_without_a_picture_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(InputError, match=r"no image; expected at least one, found 1 \.txt"):
        read_image_set("folder", None, tmp_path)


def test_thumbnails_are_upright_and_on_white(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (400, 200)).save(tmp_path / "a.jpg", exif=exif)
    Image.new("LA", (200, 200)).save(tmp_path / "b.png")
    import base64

    shown = []
    for name in ("a.jpg", "b.png"):
        uri = thumbnail(tmp_path / name)
        assert uri is not None
        shown.append(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
    assert shown[0].height > shown[0].width
    assert shown[1].convert("L").getextrema()[0] > 250


@settings(max_examples=150)
@given(st.sampled_from(sorted(WRITTEN)), st.integers(0, 2**32))
def test_no_spoiled_picture_gets_past_the_decoder(form: str, seed: int) -> None:
    found = decode(spoil(written(form), random.Random(seed)))
    assert isinstance(found, Image.Image) or found
