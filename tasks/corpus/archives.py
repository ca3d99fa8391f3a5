"""Members of zip files; their names and sizes are from outside."""

import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

from tasks.errors import InputError

CHUNK: Final = 1 << 20
LARGEST_MEMBER: Final = 32 * 2**30
LARGEST_RATIO: Final = 200


def unpacked(archive: Path, name: str) -> Path:
    """A member of a zip file, unpacked beside it."""
    place = PurePosixPath(name)
    if place.is_absolute() or ".." in place.parts or "\\" in name or not place.name:
        raise InputError(f"{archive}: member {name!r}; expected a path inside the archive")
    status = archive.stat()
    key = hashlib.sha256(f"{name}|{status.st_size}|{status.st_mtime_ns}".encode()).hexdigest()[:16]
    out = archive.parent / key / place.name
    if out.is_file():
        return out
    out.parent.mkdir(exist_ok=True)
    part = out.with_name(f".{out.name}.part")
    with _opened(archive) as packed:
        try:
            entry = packed.getinfo(name)
        except KeyError as error:
            some = ", ".join(packed.namelist()[:10])
            raise InputError(f"{archive}: no member {name!r}; there are {some}") from error
        limit = min(LARGEST_MEMBER, max(entry.compress_size, 1 << 16) * LARGEST_RATIO)
        if entry.file_size > limit:
            raise InputError(
                f"{archive}: member {name!r} unpacks to {entry.file_size:,} bytes; expected at "
                f"most {limit:,}"
            )
        with packed.open(entry) as source, part.open("wb") as sink:
            written = 0
            while block := source.read(CHUNK):
                written += len(block)
                if written > entry.file_size:
                    raise InputError(f"{archive}: member {name!r} is larger than it says")
                sink.write(block)
    part.replace(out)
    return out


@contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(archive) as packed:
            yield packed
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{archive}: no whole zip file: {error}") from error
