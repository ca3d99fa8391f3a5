"""Text files as they come: packed or not, in any encoding, read as UTF-8 a block at a time."""

import codecs
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, Protocol

from tasks.errors import InputError

BLOCK: Final = 1 << 20
LONGEST_LINE: Final = 1 << 20
GZIP_MAGIC: Final = b"\x1f\x8b"
# what begins like this is no text, whatever its name says
MAGICS: Final = {
    b"PK\x03\x04": "a zip archive (or an Excel sheet)",
    b"PAR1": "a Parquet file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ\x00": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"SQLite format 3\x00": "an SQLite database",
    b"%PDF-": "a PDF",
    b"\x89HDF": "an HDF5 file",
    GZIP_MAGIC: "a file that is packed twice",
    b"version https://git-lfs": "a Git LFS pointer and not its file",
    b"<!DOCTYPE html": "a web page",
    b"<html": "a web page",
}
BOMS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Source(Protocol):
    """Bytes to read, some at a time."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""


@contextmanager
def unpacked(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked if it is gzip; a cut or broken gzip is an InputError."""
    with path.open("rb") as file:
        is_gzip = file.read(2) == GZIP_MAGIC
        file.seek(0)
        try:
            if is_gzip:
                with gzip.open(file) as content:
                    yield content  # type: ignore[misc]
            else:
                yield file
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(
                f"{path}: cut short or broken gzip ({error}); fetch the file again"
            ) from error


@contextmanager
def opened(path: Path, encoding: str | None = None) -> Iterator[Source]:
    """The file's text as UTF-8 without its mark; a byte that is no text stays invalid UTF-8.

    Raises:
        InputError: broken gzip, or a file of another kind.

    """
    with unpacked(path) as file:
        head = b""
        while len(head) < BLOCK and (more := file.read(BLOCK - len(head))):
            head += more
        found = next((name for magic, name in MAGICS.items() if head.startswith(magic)), None)
        if found:
            raise InputError(f"{path}: {found}; expected text; fetch, unpack or export it")
        name = codecs.lookup(encoding).name if encoding else _guessed(head)
        if name in ("utf-8", "utf-8-sig", "ascii"):
            yield _Joined(head.removeprefix(codecs.BOM_UTF8), file)
        else:
            yield _Transcoded(name, _Joined(head, file))


def _guessed(head: bytes) -> str:
    """UTF-8, but for a mark or for NULs in every other place, which no UTF-8 text has."""
    for mark, name in BOMS:
        if head.startswith(mark):
            return name
    start = head[: 1 << 12]
    even, odd = start[::2].count(0), start[1::2].count(0)
    if max(even, odd) > len(start) // 5 and min(even, odd) < len(start) // 50 + 1:
        return "utf-16-le" if odd > even else "utf-16-be"
    return "utf-8"


class _Joined:
    """What was read already, then the rest."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head, self._rest = head, rest

    def read(self, size: int) -> bytes:
        if not self._head:
            return self._rest.read(size)
        start, self._head = self._head[:size], self._head[size:]
        return start


class _Transcoded:
    """Text of another encoding as UTF-8; what cannot be decoded becomes a lone surrogate."""

    def __init__(self, encoding: str, file: Source) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder(encoding)("tai-lone-surrogate")
        self._ended = False

    def read(self, size: int) -> bytes:
        while not self._ended:
            block = self._file.read(size)
            self._ended = not block
            text = self._decoder.decode(block, self._ended).encode("utf-8", "surrogatepass")
            if text:
                return text
        return b""


def _lone_surrogate(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\udcff", error.end


codecs.register_error("tai-lone-surrogate", _lone_surrogate)


def line_blocks(path: Path) -> Iterator[tuple[int, list[bytes]]]:
    """(number of the first line, lines) of blocks of lines; a line that is too long is cut."""
    with opened(path) as file:
        first, rest = 1, b""
        while block := file.read(BLOCK):
            *lines, rest = (rest + block).split(b"\n")
            # enough to tell that it is too long
            rest = rest[:LONGEST_LINE]
            if lines:
                yield first, lines
                first += len(lines)
        if rest:
            yield first, [rest]


def kept_ends(file: Source) -> Iterator[list[bytes]]:
    """Blocks of lines with their ends, be they of Unix, Windows or old Macs."""
    rest = b""
    while block := file.read(BLOCK):
        lines = (rest + block).splitlines(keepends=True)
        # a line may go on, and \r be half of \r\n
        rest = b"" if lines[-1].endswith(b"\n") else lines.pop()[: LONGEST_LINE + 1]
        if lines:
            yield lines
    if rest:
        yield rest.splitlines(keepends=True)


def check_gzip(path: Path) -> None:
    """Read through a packed file, so that a cut one is found before work starts."""
    with unpacked(path) as file:
        while isinstance(file, gzip.GzipFile) and file.read(BLOCK):
            pass
