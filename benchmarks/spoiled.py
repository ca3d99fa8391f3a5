"""Spoiled pictures of every format that Pillow writes or reads: none may get past the decoder."""

import io
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import numpy as np
from PIL import Image

from tasks.images.decode import decode

COUNT: Final = 10_000
# of what Pillow writes: modes to write it in, and how
WRITTEN: Final[dict[str, dict[str, Any]]] = {
    "AVIF": {}, "BLP": {"mode": "P"}, "BMP": {}, "DDS": {"mode": "RGBA"}, "DIB": {}, "EPS": {},
    "GIF": {"mode": "P"}, "ICNS": {"mode": "RGBA"}, "ICO": {"mode": "RGBA"}, "IM": {}, "JPEG": {},
    "JPEG2000": {}, "MPO": {}, "MSP": {"mode": "1"}, "PCX": {}, "PNG": {"mode": "RGBA"}, "PPM": {},
    "QOI": {}, "SGI": {}, "SPIDER": {"mode": "F"}, "TGA": {}, "TIFF": {"compression": "tiff_lzw"},
    "WEBP": {}, "XBM": {"mode": "1"}, "PDF": {},
}  # fmt: skip
# of what it only reads: how such a file begins; what follows is noise
STARTS: Final[dict[str, bytes]] = {
    "BUFR": b"BUFR", "CUR": b"\0\0\2\0\1\0\x20\x20\0\0", "DCX": b"\xb1\x68\xde\x3a",
    "DXT1": b"DDS \x7c\0\0\0\x07\x10\0\0\x10\0\0\0\x10\0\0\0", "FITS": b"SIMPLE  =",
    "FLI": b"\0\1\0\0\x12\xaf\1\0\x20\0\x20\0\x08\0\3\0",
    "FTEX": b"FTEX\0\0\1\0\x10\0\0\0\x10\0\0\0",
    "GBR": b"\0\0\0\x1c\0\0\0\2\0\0\0\x10\0\0\0\x10\0\0\0\4GIMP", "GRIB": b"GRIB",
    "HDF5": b"\x89HDF\r\n\x1a\n", "IMT": b"\x0a*\x0awidth 16\nheight 16\n\x0c", "IPTC": b"\x1c\2",
    "MCIDAS": b"\0\0\0\0\0\0\0\4", "MPEG": b"\0\0\1\xb3\1\0\x10", "PCD": bytes(2048) + b"PCD_",
    "PIXAR": b"\x80\xe8\0\0", "PSD": b"8BPS\0\1\0\0\0\0\0\0\0\3\0\0\0\x10\0\0\0\x10\0\x08\0\3",
    "SUN": b"\x59\xa6\x6a\x95\0\0\0\x10\0\0\0\x10\0\0\0\x18", "WMF": b"\xd7\xcd\xc6\x9a\0\0",
    "EMF": b"\1\0\0\0" + bytes(36) + b" EMF", "XPM": b'/* XPM */\n"16 16 2 1",\n',
    "XVTHUMB": b"P7 332\n#END_OF_COMMENTS\n16 16 255\n", "HEIC": b"\0\0\0\x18ftypheic",
}  # fmt: skip


@cache
def written(form: str) -> bytes:
    """A whole small file of a format."""
    options = dict(WRITTEN[form])
    mode = options.pop("mode", "RGB")
    noise = np.random.default_rng(0).integers(0, 255, (32, 40, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(file, form, **options)
    return file.getvalue()


def spoil(whole: bytes, rng: random.Random) -> bytes:
    """Bytes changed, a part cut out, doubled or filled, the end cut off; often near the start."""
    content = bytearray(whole)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not content:
            break
        reach = rng.choice((32, 128, 1024, len(content)))
        at = rng.randrange(min(reach, len(content)))
        size = rng.choice((1, 1, 2, 4, 8, 64))
        how = rng.randrange(6)
        if how < 2:
            content[at] = rng.randrange(256)
        elif how == 2:
            content[at : at + size] = rng.choice((b"\0", b"\xff", b"\x7f")) * size
        elif how == 3:
            del content[at : at + size]
        elif how == 4:
            content[at:at] = rng.randbytes(size)
        else:
            del content[rng.randrange(len(content)) :]
    return bytes(content)


def sources() -> dict[str, Callable[[random.Random], bytes]]:
    """By format, what makes a spoiled file of it."""
    found: dict[str, Callable[[random.Random], bytes]] = {}
    for form in WRITTEN:
        found[form] = lambda rng, form=form: spoil(written(form), rng)  # type: ignore[misc]
    for form, start in STARTS.items():
        found[form] = lambda rng, start=start: spoil(  # type: ignore[misc]
            start + rng.choice((bytes(600), rng.randbytes(600))), rng
        )
    return found


def main() -> None:
    """Decode spoiled files of every format in turn; print what became of them."""
    made = sources()
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    # what C libraries print about spoiled files is of no use here
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    outcome: Counter[str] = Counter()
    started, slowest = time.perf_counter(), 0.0
    for number in range(count):
        form = list(made)[number % len(made)]
        before = time.perf_counter()
        try:
            image = decode(made[form](random.Random(number)))  # noqa: S311
            outcome["reject" if isinstance(image, str) else "picture"] += 1
        except BaseException as error:
            outcome["escaped"] += 1
            print(f"{form}, seed {number}: {error!r}")
        slowest = max(slowest, time.perf_counter() - before)
    print(f"{count:,} spoiled files of {len(made)} formats: {dict(outcome)}")
    found = {
        "formats": len(made),
        "files": count,
        "escaped": outcome["escaped"],
        "slowest_s": round(slowest, 3),
        "seconds": round(time.perf_counter() - started, 1),
    }
    print(json.dumps({"benchmark": "spoiled"} | found))


if __name__ == "__main__":
    main()
