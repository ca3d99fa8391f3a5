"""One decoder for all roads: features, tags, thumbnails, heat maps, the served model.

A picture is told by its content, not by its suffix, and comes out as 8-bit RGB: upright by its EXIF
orientation, deeper greys scaled, transparency on white, of an animation the first frame. What a
decoder may raise is everything, so everything is caught around it and becomes a reason.
"""

import errno
import importlib
import io
import os
import re
import stat
import warnings
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from tasks.errors import InputError
from tasks.places import Address, Place
from tasks.workspace import source_sha256

Source = Place | bytes
"""A file, or a file's bytes."""

LARGEST_PIXELS: Final = 100_000_000
NOT_READ: Final = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
"""Formats that Pillow knows but does not decode, or hands to a program that runs them."""
SUFFIXES: Final = frozenset({
    ".apng", ".avif", ".avifs", ".bmp", ".dds", ".dib", ".gif", ".heic", ".heif", ".hif",
    ".icns", ".ico", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo",
    ".pbm", ".pcx", ".pgm", ".png", ".pnm", ".ppm", ".psd", ".qoi", ".tga", ".tif", ".tiff",
    ".webp",
})  # fmt: skip
STARTS: Final = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0",
    b"MM\0+", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51", b"8BPS", b"DDS ", b"qoif", b"icns",
)  # fmt: skip
"""First bytes of the usual formats; AVIF, HEIC, WebP and BMP need a second look."""
HEIC: Final = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
TURNS: Final[Mapping[int, Image.Transpose]] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What sets a picture upright, by its EXIF orientation."""
ORIENTATION: Final = 0x0112
WHITE_IS_ZERO: Final = (0x0106, 0)
"""TIFF's PhotometricInterpretation, and the value of it that Pillow heeds up to 8 bits alone."""
RANGES: Final = (255, 1023, 4095, 65535)
"""Highest values of the depths that greys are stored in, whatever the container's."""
_NOT_UTF8: Final = re.compile(r"\\x[89a-f][0-9a-f]")

# above this Pillow warns, and the size is refused here; above twice this it raises by itself
Image.MAX_IMAGE_PIXELS = LARGEST_PIXELS
# what is odd and yet decodes is not worth a line each, and a filter set in a thread is everyone's
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode(source: Source, at_least: int | None = None) -> Image.Image | str:
    """The picture as 8-bit RGB, upright, or why it is none that can be used.

    Args:
        source: a file here or at an address, or a file's bytes.
        at_least: pixels of the shorter side that are enough; JPEGs are then decoded smaller.

    Raises:
        InputError: an address does not answer, which says nothing of the picture.

    """
    _plugins()
    if isinstance(source, Address):
        content = source.read()
        if isinstance(content, str):
            return content
        source = content
    try:
        reason = None if isinstance(source, bytes) else _not_a_file(source)
        if reason is not None:
            return reason
        return _decode(source, at_least)
    except Exception as error:
        # a third party's decoder may raise anything: RuntimeError, NotImplementedError, MemoryError
        return _reason(source, error)


def content_sha256(path: Path) -> str | None:
    """SHA-256 of a file's bytes, or None where it is none that can be read."""
    try:
        return None if _not_a_file(path) else source_sha256(path)
    except InputError:
        return None


def looks_like_picture(path: Path) -> bool:
    """Whether a folder's file is taken for a picture: by its suffix, or by its first bytes."""
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            start = file.read(16)
    except OSError:
        return False
    return (
        start.startswith(STARTS)
        or (start[4:8] == b"ftyp" and start[8:12] in HEIC | {b"avif", b"avis"})
        or (start.startswith(b"RIFF") and start[8:12] == b"WEBP")
        or (start.startswith(b"BM") and start[6:10] == b"\0\0\0\0")
    )


def printable(name: str) -> str:
    """A file's name as text that can be stored: bytes that are not UTF-8 are written in hex."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _decode(source: Path | bytes, at_least: int | None) -> Image.Image | str:
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
        if image.format in NOT_READ:
            return f"{image.format} is not read here; save it as PNG or JPEG"
        if image.width * image.height > LARGEST_PIXELS:
            return f"{image.width} x {image.height} pixels, more than {LARGEST_PIXELS:,}"
        if at_least:
            image.draft("RGB", (at_least, at_least))
        image.load()
        turn = TURNS.get(_orientation(image))
        flat = _rgb(image)
    return flat if turn is None else flat.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation; 1, upright, where there is none or it cannot be read."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:
        # spoiled EXIF raises struct.error, SyntaxError, ZeroDivisionError; the pixels are whole
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy() if image.readonly else image
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return _eight_bits(image).convert("RGB")
    if image.mode == "LAB":
        return _from_lab(image)
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, "white")
        # premultiplied modes are divided first; neither goes to RGB in one step
        straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)
        return Image.alpha_composite(ground, image.convert(straight).convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Deep greys as 8 bits: by the depth that their values use, else from lowest to highest."""
    values: npt.NDArray[np.float64] = np.asarray(image).astype(np.float64)
    known = np.isfinite(values)
    if not known.any():
        raise ValueError("no pixel has a finite value")
    low, high = float(values[known].min()), float(values[known].max())
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    depths = (1, *RANGES) if image.mode == "F" else RANGES
    fitting = [depth for depth in depths if high <= depth]
    if low < 0 or not fitting:
        bottom, span = low, (high - low) or 1.0
    else:
        bottom, span = 0.0, float(fitting[0])
    scaled = (values - bottom) / span * 255
    tags: Any = getattr(image, "tag_v2", {})
    if tags.get(WHITE_IS_ZERO[0]) == WHITE_IS_ZERO[1]:
        scaled = 255 - scaled
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        scaled[values == clear] = 255
    return Image.fromarray(scaled.round().clip(0, 255).astype(np.uint8))


def _from_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    transform = ImageCms.buildTransform(
        ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
    )
    made = ImageCms.applyTransform(image, transform)
    if made is None:
        raise ValueError("LAB colours cannot be converted")
    return made


def _not_a_file(path: Path) -> str | None:
    """Why a path is no file that can be opened; a pipe would be waited on for ever."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            if path.is_symlink():
                return "a link to nothing"
            if _NOT_UTF8.search(path.name):
                return "its name is not UTF-8; rename it"
            return "no such file"
        return f"cannot be read: {error.strerror}"
    if stat.S_ISDIR(mode):
        return "a folder, not a file"
    if not stat.S_ISREG(mode):
        return "not a file: a pipe, socket or device"
    return None


def _reason(source: Path | bytes, error: Exception) -> str:
    if isinstance(source, Path):
        if isinstance(error, OSError) and error.errno and error.strerror:
            return f"cannot be read: {error.strerror}"
        with suppress(OSError), source.open("rb") as file:
            start = file.read(16)
            if not start:
                return "an empty file"
            if start[4:8] == b"ftyp" and start[8:12] in HEIC:
                return "HEIC, which pip install pillow-heif adds; or save it as JPEG"
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError):
        said = "more memory than there is"
    if isinstance(source, Path):
        said = said.replace(str(source), source.name).replace(repr(str(source)), repr(source.name))
    elif "cannot identify image file" in said:
        said = "cannot identify image file"
    said = said.encode("utf-8", "backslashreplace").decode()[:200]
    return f"not a whole image: {said}"


@cache
def _plugins() -> None:
    """HEIC, as iPhones make it, where people have installed what reads it."""
    with suppress(Exception):
        importlib.import_module("pillow_heif").register_heif_opener()
