"""Where images lie: a folder here, or one of another file system by an address that fsspec knows.

What an address holds is told apart by what its store says of each file (ETag, generation or time,
and size), so that nothing is fetched only to learn that it is known.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from tasks.errors import InputError
from tasks.files import digest_of

TRIES: Final = 3
WAIT_S: Final = 1.0
VERSION: Final = (
    "etag", "e_tag", "md5hash", "content_md5", "crc32c", "checksum", "generation", "version",
    "lastmodified", "last_modified", "last_write_time", "updated", "mtime", "modified", "created",
)  # fmt: skip
"""What file systems call that which changes with a file's bytes; times of access are none."""
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*)://")


@dataclass(frozen=True)
class Address:
    """A file or folder of another file system."""

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, file: str) -> Address:
        return Address(f"{self.url.rstrip('/')}/{file}")

    @property
    def name(self) -> str:
        """Its last part."""
        return PurePosixPath(self.url).name

    def is_dir(self) -> bool:
        """Whether there is a folder of that name; InputError if nothing answers there."""
        return bool(self._ask("isdir"))

    def read(self) -> bytes | str:
        """A file's bytes, or why there are none.

        Raises:
            InputError: the store does not give them after some tries.

        """
        for tried in range(1, TRIES + 1):
            try:
                return bytes(self._ask("cat_file"))
            except FileNotFoundError:
                return "no such file"
            except InputError:
                if tried == TRIES:
                    raise
                time.sleep(WAIT_S * tried)
        raise AssertionError

    def files(self) -> dict[str, str]:
        """All files of a folder and what is below it, by relative path: what tells their bytes."""
        try:
            found: Mapping[str, Mapping[str, Any]] = self._ask("find", detail=True)
        except FileNotFoundError:
            return {}
        root = self._system()[1].rstrip("/")
        return {
            name.removeprefix(root).lstrip("/"): self._version(name, info)
            for name, info in found.items()
        }

    def _version(self, name: str, info: Mapping[str, Any]) -> str:
        said = {key.lower(): str(value) for key, value in info.items() if value is not None}
        version = [f"{key} {said[key]}" for key in VERSION if key in said]
        if not version:
            content = (self / name.removeprefix(self._system()[1]).lstrip("/")).read()
            return hashlib.sha256(content if isinstance(content, bytes) else b"").hexdigest()
        return digest_of([self.url, name, said.get("size"), version])

    def _system(self) -> tuple[Any, str]:
        import fsspec

        try:
            system, path = fsspec.core.url_to_fs(self.url)
        except ImportError as error:
            raise InputError(
                f"{self.url}: needs an extra; run pip install 'tai-flows[s3]' for s3"
            ) from error
        except ValueError as error:
            raise InputError(f"{self.url}: {error}") from error
        return system, str(path)

    def _ask(self, what: str, **how: Any) -> Any:
        system, path = self._system()
        try:
            return getattr(system, what)(path, **how)
        except FileNotFoundError:
            raise
        except Exception as error:  # stores' clients raise kinds of their own
            told = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(f"{self.url}: cannot be read: {told}; run again to go on") from error


Place = Path | Address
"""A folder of images, or one of its files."""


def place_of(text: str, data: Path = Path()) -> Place:
    """The folder that a text names: an address as it stands, a path relative to `data`."""
    found = _SCHEME.match(text)
    if found and found[1] != "file":
        return Address(text)
    return Path(data, text.removeprefix("file://")).expanduser().absolute()


def any_there(folder: Place, files: Iterable[str]) -> bool:
    """Whether at least one of the files is in the folder."""
    if isinstance(folder, Address):
        return not folder.files().keys().isdisjoint(files)
    return any((folder / file).is_file() for file in files)
