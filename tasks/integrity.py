"""Whether a finished stage is as it was when it was made: its manifest, sizes, and bytes."""

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tasks.errors import InputError
from tasks.files import canonical, file_sha256, write_whole

MANIFEST: Final = "manifest.json"
SEAL: Final = "seal.json"
"""Beside the files of a folder that is handed on, and is no stage any more."""
_checked: dict[tuple[str, str], tuple[int, ...]] = {}
"""Files whose bytes this process has found right, by path and SHA-256: what they looked like."""


class DamagedError(InputError):
    """A finished stage is not as it was made; the message names the file."""


def sealed(manifest: Mapping[str, Any]) -> str:
    """A manifest's text, with a digest of all else that it says."""
    whole = {**manifest, "seal": hashlib.sha256(canonical(manifest)).hexdigest()}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def seal_folder(folder: Path, also: Mapping[str, str]) -> None:
    """Note the SHA-256 of a folder's files, and of those that are yet to come (`also`, by name)."""
    paths = sorted(path for path in folder.iterdir() if path.is_file() and path.name != SEAL)
    outputs = {path.name: file_sha256(path) for path in paths}
    write_whole(folder / SEAL, sealed({"outputs": {**outputs, **also}}))


def check_folder(folder: Path) -> None:
    """Look at every byte of a sealed folder; one without a seal is taken as it is.

    Raises:
        DamagedError: a file is not as it was.

    """
    path = folder / SEAL
    if not path.exists():
        return
    for name, sha256 in unsealed(path)["outputs"].items():
        check_bytes(folder / name, sha256)


def unsealed(path: Path) -> dict[str, Any]:
    """What `sealed` has written; DamagedError if that is not what is there."""
    try:
        text = path.read_text(encoding="utf-8")
        found: dict[str, Any] = json.loads(text)
        found.pop("seal")
        is_whole = sealed(found) == text
    except FileNotFoundError as error:
        raise DamagedError(f"{path}: gone from a finished stage") from error
    except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError) as error:
        raise DamagedError(f"{path}: not as it was written") from error
    if not is_whole:
        raise DamagedError(f"{path}: not as it was written")
    return found


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished stage, whose files have the sizes that it says.

    Raises:
        DamagedError: the manifest is not as it was written, or a file is gone, longer or shorter.

    """
    path = folder / MANIFEST
    manifest = unsealed(path)
    if manifest.get("key") != folder.name:
        raise DamagedError(f"{path}: of another stage")
    for name, size in manifest["sizes"].items():
        check_size(folder / name, size)
    return manifest


def check_size(path: Path, size: int) -> None:
    """Raise DamagedError if a stage's file is gone or has another size."""
    try:
        found = path.stat().st_size
    except OSError as error:
        raise DamagedError(f"{path}: gone from a finished stage") from error
    if found != size:
        raise DamagedError(f"{path}: {found:,} bytes where {size:,} were written")


def looks(path: Path) -> tuple[int, ...]:
    """What a file looks like from outside: it has other bytes only if this is another."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def check_bytes(path: Path, sha256: str) -> None:
    """Raise DamagedError if a stage's file has other bytes; looked at once in a process."""
    try:
        seen = looks(path)
        if _checked.get((str(path), sha256)) == seen:
            return
        found = file_sha256(path)
    except OSError as error:
        raise DamagedError(f"{path}: cannot be read: {error.strerror or error}") from error
    if found != sha256:
        raise DamagedError(f"{path}: its bytes have changed since they were written")
    _checked[str(path), sha256] = seen


def set_aside(folder: Path) -> Path | None:
    """Give what is damaged another name, to be looked at or cleaned; None if nothing is there."""
    aside = folder.with_name(f".{folder.name}.{time.time_ns()}.damaged")
    try:
        folder.rename(aside)
    except FileNotFoundError:
        return None
    return aside
