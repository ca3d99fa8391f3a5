"""Files from elsewhere: http(s), resumed and checked; members of zips; s3; official names.

A download lies in `$TAI_HOME/downloads/<key of the address>/` under the address's own file name. It
grows as `.part` and is renamed when it is whole: of the length that the server and the caller say,
and of the SHA-256 that the caller says or, for an official file, that its first download had.
"""

import hashlib
import json
import logging
import re
import shutil
import time
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import unquote, urldefrag, urlsplit

import httpx

from tasks.corpus.archives import unpacked
from tasks.errors import InputError
from tasks.progress import Progress
from tasks.workspace import file_sha256, home, locked, write_whole

LOG = logging.getLogger("tai")
OFFICIAL: Final = Path(__file__).parent / "official.toml"
CHUNK: Final = 1 << 20
TRIES: Final = 5
WAIT_S: Final = 0.5
TIMEOUT: Final = httpx.Timeout(30.0)
LARGEST: Final = 2**40


@dataclass(frozen=True)
class Remote:
    """A file elsewhere, and what is known of it."""

    url: str
    member: str | None = None
    """Member of a zip file; None: the file itself."""
    size: int | None = None
    sha256: str | None = None
    is_official: bool = False
    """True: its content never changes, so its first download says what it must be."""


class _InterruptedError(Exception):
    """The connection broke, or the server had no time: worth another try."""


def is_remote(path: str) -> bool:
    """True if a profile's path is an address or an official name, not a file here."""
    return path.startswith(("http://", "https://", "s3://", "official:"))


def remote(path: str) -> Remote:
    """What a profile's path means: `https://…`, `https://….zip#member`, `s3://…`, `official:name`.

    Raises:
        InputError: an official name that is unknown, or an address without a file name.

    """
    if path.startswith("official:"):
        name = path.removeprefix("official:")
        if name not in _official():
            raise InputError(f"{path}: expected one of {', '.join(_official())}")
        return Remote(**_official()[name], is_official=True)
    url, member = urldefrag(path)
    _file_name(url)
    return Remote(url, unquote(member) or None)


def fetch(wanted: Remote) -> Path:
    """The file, downloaded if it is not here or has changed there.

    Raises:
        InputError: it cannot be had, or is not what it must be.

    """
    folder = _folder(wanted)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / _file_name(wanted.url)
    with locked(folder / ".lock"):
        if urlsplit(wanted.url).scheme in ("http", "https"):
            _download(wanted, file)
        else:
            _copy(wanted.url, file)
        _check(wanted, file)
        return unpacked(file, wanted.member) if wanted.member else file


def at_hand(wanted: Remote) -> bool:
    """Whether the file was downloaded before."""
    return (_folder(wanted) / _file_name(wanted.url)).is_file()


def _folder(wanted: Remote) -> Path:
    return home() / "downloads" / hashlib.sha256(wanted.url.encode()).hexdigest()[:20]


@cache
def _official() -> dict[str, dict[str, Any]]:
    return tomllib.loads(OFFICIAL.read_text(encoding="utf-8"))


def _file_name(url: str) -> str:
    """Last part of an address's path, if it can be a file's name."""
    name = unquote(PurePosixPath(urlsplit(url).path).name)
    if not re.fullmatch(r"[\w][\w. +()-]{0,199}", name):
        raise InputError(f"{url}: expected an address that ends in a plain file name")
    return name


def _download(wanted: Remote, file: Path) -> None:
    """Bring `file` to the state that the server has; goes on where an earlier try stopped."""
    if file.is_file() and (wanted.sha256 or wanted.is_official):
        return
    tries, done = 0, -1
    while True:
        part = file.with_name(f".{file.name}.part")
        try:
            with httpx.Client(timeout=TIMEOUT, follow_redirects=True) as client:
                _request(client, wanted, file, part)
            return
        except (httpx.TransportError, _InterruptedError) as error:
            reached = part.stat().st_size if part.is_file() else 0
            # as long as each try brings something, go on
            tries = 0 if reached > done else tries + 1
            done = reached
            if tries == TRIES:
                if file.is_file():
                    LOG.warning("%s: not reached (%s); taking the copy that is here", file, error)
                    return
                raise InputError(
                    f"{wanted.url}: {error or type(error).__name__} after {TRIES} tries; what came "
                    "so far is kept, run again to go on"
                ) from error
            time.sleep(WAIT_S * tries)


def _request(client: httpx.Client, wanted: Remote, file: Path, part: Path) -> None:
    state = part.with_suffix(".json")
    known = _state(file.with_name(f".{file.name}.json")) if file.is_file() else {}
    begun = _state(state) if part.is_file() else {}
    start = part.stat().st_size if begun.get("tag") else 0
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": begun["tag"]}
    elif known.get("tag"):
        headers |= {known["condition"]: known["tag"]}
    with client.stream("GET", wanted.url, headers=headers) as answer:
        if answer.status_code == httpx.codes.NOT_MODIFIED:
            return
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()
            raise _InterruptedError("the server has less than what came before")
        if answer.is_server_error or answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise _InterruptedError(f"the server answers {answer.status_code}")
        if not answer.is_success:
            raise InputError(f"{wanted.url}: the server answers {answer.status_code}")
        goes_on = answer.status_code == httpx.codes.PARTIAL_CONTENT
        if goes_on and not _begins_at(answer, start):
            part.unlink()
            raise _InterruptedError("the server sent another range than was asked for")
        start = start if goes_on else 0
        length = _length(answer)
        size = start + length if length is not None else None
        limit = _limit(wanted, size, part)
        write_whole(state, json.dumps(_tag(answer)))
        progress = Progress(f"download {file.name}", size or 0, "bytes", done=start)
        with part.open("ab" if goes_on else "wb") as sink:
            for chunk in answer.iter_raw():
                start += len(chunk)
                if start > limit:
                    raise InputError(f"{wanted.url}: more than the {limit:,} bytes expected")
                sink.write(chunk)
                progress.add(len(chunk))
    if size is not None and start < size:
        raise _InterruptedError(f"{start:,} of {size:,} bytes came")
    state.replace(file.with_name(f".{file.name}.json"))
    part.replace(file)


def _state(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _tag(answer: httpx.Response) -> dict[str, str]:
    """What tells this content from another under the same address, and how to ask for it."""
    tag = answer.headers.get("ETag", "")
    if tag and not tag.startswith("W/"):
        return {"tag": tag, "condition": "If-None-Match"}
    modified = answer.headers.get("Last-Modified", "")
    return {"tag": modified, "condition": "If-Modified-Since"}


def _begins_at(answer: httpx.Response, start: int) -> bool:
    found: str = answer.headers.get("Content-Range", "")
    return found.startswith(f"bytes {start}-")


def _length(answer: httpx.Response) -> int | None:
    text = answer.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def _limit(wanted: Remote, size: int | None, part: Path) -> int:
    """Most bytes that may come; InputError if the server's word is not the caller's."""
    if None not in (size, wanted.size) and size != wanted.size:
        raise InputError(f"{wanted.url}: {size:,} bytes there; expected {wanted.size:,}")
    free = shutil.disk_usage(part.parent).free
    expected = wanted.size or size
    if expected is not None and expected > free:
        raise InputError(f"{wanted.url}: {expected:,} bytes, {free:,} are free at {part.parent}")
    return expected if expected is not None else min(free, LARGEST)


def _copy(url: str, file: Path) -> None:
    """A file of another file system that fsspec knows, if it is not the one that is here."""
    import fsspec

    part = file.with_name(f".{file.name}.part")
    state = file.with_name(f".{file.name}.json")
    try:
        system, path = fsspec.core.url_to_fs(url)
        mark = {"mark": str(system.checksum(path))}
        if file.is_file() and _state(state) == mark:
            return
        system.get_file(path, str(part))
    except ImportError as error:
        raise InputError(f"{url}: needs an extra; run pip install 'tai-flows[s3]'") from error
    except OSError as error:
        raise InputError(f"{url}: cannot be read: {error}") from error
    part.replace(file)
    write_whole(state, json.dumps(mark))


def _check(wanted: Remote, file: Path) -> None:
    """InputError, and the file put aside, if size or SHA-256 are not what they must be."""
    found = file.stat().st_size
    if wanted.size is not None and found != wanted.size:
        _refuse(file, f"{wanted.url}: {found:,} bytes; expected {wanted.size:,}")
    record = file.with_name(f".{file.name}.sha256")
    recorded = record.read_text().strip() if wanted.is_official and record.is_file() else None
    expected = wanted.sha256 or recorded
    if expected is None and not wanted.is_official:
        return
    checked = file.with_name(f".{file.name}.checked")
    status = f"{found} {file.stat().st_mtime_ns} {expected}"
    if expected and checked.is_file() and checked.read_text() == status:
        return
    digest = file_sha256(file)
    if expected is not None and digest != expected.lower():
        _refuse(file, f"{wanted.url}: SHA-256 {digest}; expected {expected}")
    if expected is None:
        write_whole(record, digest + "\n")
        LOG.info("download: %s: SHA-256 %s from now on", file.name, digest)
    else:
        write_whole(checked, status)


def _refuse(file: Path, problem: str) -> None:
    aside = file.with_name(f"{file.name}.refused")
    file.replace(aside)
    raise InputError(f"{problem}; what came is at {aside}")
