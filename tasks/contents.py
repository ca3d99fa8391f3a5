"""Digests of files from outside, remembered as long as nothing can have changed them.

A file is known by place, size, modification time, inode and change time; the last one cannot be
set, so a copy that keeps size and modification time (`cp -p`, `tar`, an image's layer) is another
file. One that was changed within the clock's last ticks is not remembered: it could change again
and look the same.
"""

import os
import time
from pathlib import Path
from typing import Final

from tasks.errors import InputError
from tasks.files import digest_of, file_sha256, home, write_whole

FOLDER: Final = "digests"
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
        known = recall(identity)
        if known:
            return known
        started = time.time_ns()
        digest = file_sha256(path)
        after = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    age = started - max(after.st_mtime_ns, after.st_ctime_ns)
    if _identity(path, after) == identity and age > TICKS_NS:
        remember(identity, digest)
    return digest


def recall(identity: str) -> str:
    """What was remembered of an identity; '' if nothing, or if the note is not whole."""
    note = home() / FOLDER / digest_of(identity)
    try:
        text = note.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    value, _, seal = text.rpartition(" ")
    return value if seal == digest_of([identity, value]) else ""


def remember(identity: str, value: str) -> None:
    """Keep a value for an identity; a home that cannot be written forgets it."""
    note = home() / FOLDER / digest_of(identity)
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        write_whole(note, f"{value} {digest_of([identity, value])}")
    except OSError:
        return


def _identity(path: Path, status: os.stat_result) -> str:
    times = f"{status.st_mtime_ns}|{status.st_ctime_ns}"
    return f"{path.resolve()}|{status.st_dev}|{status.st_ino}|{status.st_size}|{times}"
