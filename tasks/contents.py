"""Digests of files from outside, remembered as long as nothing can have changed them.

A file is known by place, size, modification time, inode and change time; the last one cannot be
set, so a copy that keeps size and modification time (`cp -p`, `tar`, an image's layer) is another
file. One that was changed within the clock's last ticks is not remembered: it could change again
and look the same.

What is remembered of a folder's files is one file of lines, read once in a process and added to, so
that a hundred thousand pictures are no hundred thousand notes. A line is a checksum, the identity's
digest and the value; one that is not whole is told, left out, and found out again.
"""

import fcntl
import logging
import os
import threading
import time
import zlib
from functools import cache
from pathlib import Path
from typing import Final

from tasks.errors import InputError
from tasks.files import digest_of, file_sha256, home, write_whole

LOG = logging.getLogger("tai")
FOLDER: Final = "notes"
TICKS_NS: Final = 2_500_000_000
"""The coarsest clock of a file system: FAT's two seconds."""


def source_sha256(path: Path) -> str:
    """SHA-256 of a source file.

    Raises:
        InputError: it cannot be read.

    """
    try:
        before = path.stat()
        identity = _identity(path, before)
        known = recall(identity, path.parent)
        if known:
            return known
        started = time.time_ns()
        digest = file_sha256(path)
        after = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    age = started - max(after.st_mtime_ns, after.st_ctime_ns)
    if _identity(path, after) == identity and age > TICKS_NS:
        remember(identity, digest, path.parent)
    return digest


def recall(identity: str, folder: Path | None = None) -> str:
    """What was remembered of an identity, of a file in `folder` or of none; '' if nothing was."""
    return _notes(_place(folder)).find(digest_of(identity))


def remember(identity: str, value: str, folder: Path | None = None) -> None:
    """Keep a value, a line, for an identity; a home that cannot be written forgets it."""
    _notes(_place(folder)).add(digest_of(identity), value)


def _place(folder: Path | None) -> Path:
    name = digest_of(str(folder.absolute()))[:20] if folder else "all"
    return home() / FOLDER / name


class _Notes:
    """The lines of one file, as far as this process has read them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, str] = {}
        self._read = 0
        self._lock = threading.Lock()

    def find(self, key: str) -> str:
        """The value of a key, or ''."""
        with self._lock:
            if key not in self._known:
                self._read_on()
            return self._known.get(key, "")

    def add(self, key: str, value: str) -> None:
        """Write a line; it begins with its break, so that it ends one that a kill has cut."""
        with self._lock:
            self._known[key] = value
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("ab", buffering=0) as file:
                    fcntl.flock(file, fcntl.LOCK_EX)
                    file.write(_line(key, value))
            except OSError as error:
                LOG.debug("%s: not remembered: %s", self._path, error)

    def _read_on(self) -> None:
        """What has been added since, by whomever."""
        try:
            with self._path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH)
                if os.fstat(file.fileno()).st_size < self._read:
                    self._read = 0  # somebody has removed it, or taken spoilt lines out
                file.seek(self._read)
                added = file.read()
        except OSError:
            return
        self._read += len(added)
        lines = [line for line in added.split(b"\n") if line]
        whole = [line for line in lines if _is_whole(line)]
        for line in whole:
            _, key, value = line.decode("utf-8").split(" ", 2)
            self._known[key] = value
        if len(whole) < len(lines):
            lost = len(lines) - len(whole)
            LOG.warning("%s: lines not as they were written, left out: %d", self._path, lost)
            self._rewrite()

    def _rewrite(self) -> None:
        """The file as it should be; what another process adds meanwhile may be lost."""
        try:
            write_whole(self._path, b"".join(_line(*note) for note in self._known.items()))
            self._read = self._path.stat().st_size
        except OSError as error:
            LOG.debug("%s: stays as it is: %s", self._path, error)


@cache
def _notes(path: Path) -> _Notes:
    return _Notes(path)


def _line(key: str, value: str) -> bytes:
    if "\n" in value:
        raise ValueError(f"expected a value of one line, got {value!r}")
    text = f"{key} {value}".encode()
    return b"\n%08x %s" % (zlib.crc32(text), text)


def _is_whole(line: bytes) -> bool:
    return line[8:9] == b" " and line[:8] == b"%08x" % zlib.crc32(line[9:])


def _identity(path: Path, status: os.stat_result) -> str:
    times = f"{status.st_mtime_ns}|{status.st_ctime_ns}"
    return f"{path.absolute()}|{status.st_dev}|{status.st_ino}|{status.st_size}|{times}"
