"""Files that are there whole or not at all, also after a power cut; and where they lie."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tasks.errors import InputError

LEAST_FREE: Final = 32 * 2**20
"""Bytes; with less left on the disk no work is begun."""
_TROUBLE: Final = {
    errno.ENOSPC: "no space is left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "it is read-only",
    errno.EACCES: "it may not be written",
    errno.EPERM: "it may not be written",
    errno.ENOTDIR: "a file lies where a folder must be",
    errno.EIO: "the disk has failed",
}


def home() -> Path:
    """Folder that holds every output: `$TAI_HOME`, or `.tai` in the working folder."""
    try:
        return Path(os.environ.get("TAI_HOME") or ".tai").expanduser().absolute()
    except RuntimeError as error:
        raise InputError(f"TAI_HOME {os.environ['TAI_HOME']!r}: {error}") from error


def address() -> Path:
    """The home under a name that may stand in a database's address: a link, if its own may not."""
    place = home()
    if not set(str(place)) & set("?%#"):
        return place
    folder = Path(tempfile.gettempdir()) / f"tai-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise InputError(f"{folder}: another user's; expected a folder of your own")
    link = folder / hashlib.sha256(os.fsencode(place)).hexdigest()[:16]
    if not link.is_symlink():
        beside = link.with_name(f"{link.name}.{os.getpid()}")
        beside.symlink_to(place)
        beside.replace(link)
    return link


def check_home() -> None:
    """Stop before work starts where nothing can be written; a read-only home may be read.

    Raises:
        InputError: the home is no folder, cannot be made, or its disk is full.

    """
    place = home()
    if not place.exists() or place.is_dir():
        try:
            place.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(place).free
        except OSError as error:
            raise InputError(
                f"{place}: {trouble(error) or error.strerror}; name another folder by TAI_HOME"
            ) from error
        if is_writable() and free < LEAST_FREE:
            raise InputError(
                f"{place}: {free / 2**20:.0f} MB are left on its disk; expected "
                f"{LEAST_FREE // 2**20} at least: free some (python -m flows.workspace clean), or "
                "name another folder by TAI_HOME"
            )
        return
    raise InputError(f"{place}: a file; expected a folder: name another one by TAI_HOME")


def is_writable() -> bool:
    """Whether new work can be stored in the home."""
    place = home()
    while not place.exists():
        place = place.parent
    try:
        is_read_only = os.statvfs(place).f_flag & os.ST_RDONLY
    except OSError:
        return False
    return not is_read_only and os.access(place, os.W_OK | os.X_OK)


def trouble(error: BaseException) -> str:
    """What a disk's refusal says in words; '' if the error is another one."""
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number in _TROUBLE:
        return _TROUBLE[number]
    is_full = any(text in str(error) for text in ("No space left", "os error 28", "Errno 28"))
    return _TROUBLE[errno.ENOSPC] if is_full else ""


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    with beside.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def sync(path: Path) -> None:
    """Have a file's bytes, or a folder's names, on the disk before going on."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def finish_shard(unfinished: Path, path: Path) -> None:
    """Give a written file of a stage that is under way its final name.

    Its SHA-256 is put beside it, so that a run that goes on can tell that it is whole.
    """
    sync(unfinished)
    write_whole(_witness(path), file_sha256(unfinished))
    unfinished.rename(path)


def has_shard(path: Path) -> bool:
    """Whether `finish_shard` has left this file, and it is as it was."""
    witness = _witness(path)
    if not (path.is_file() and witness.is_file()):
        return False
    return witness.read_bytes() == file_sha256(path).encode()


def forget_shards(folder: Path) -> None:
    """Remove what `has_shard` goes by, and what a killed write has left, from a whole folder."""
    for pattern in (".*.whole", ".*.new"):
        for path in folder.rglob(pattern):
            path.unlink()


def _witness(path: Path) -> Path:
    return path.with_name(f".{path.name}.whole")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical(value: Any) -> bytes:
    """JSON bytes that are the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest_of(value: Any) -> str:
    """SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical(value)).hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an advisory lock that the system drops if this process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock that `locked` takes at a path."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
