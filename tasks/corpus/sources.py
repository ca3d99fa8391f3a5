"""Where a profile's captions come from: files and patterns here, addresses elsewhere."""

from __future__ import annotations

import glob
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.corpus import downloads
from tasks.errors import InputError

if TYPE_CHECKING:
    from tasks.profile import Profile
    from tasks.settings import CaptionSource

LOG = logging.getLogger("tai")


def caption_files(profile: Profile) -> list[tuple[CaptionSource, Path]]:
    """Every caption file of the profile, once, with its source; one from elsewhere is fetched.

    Composed captions are none: they are made of what these files say.

    The source's `path` is the file as the profile names it, relative to `data`: part of the
    identity of its captions. A file that is met twice, by whatever names, counts the first time.

    Raises:
        InputError: no file, or two sources of one name read one file in two ways.

    """
    met: dict[tuple[object, ...], str] = {}
    found: dict[tuple[str, str], tuple[CaptionSource, Path]] = {}
    for source in profile.sources:
        if source.form == "composed":
            continue
        for named, path in _files_of(profile, source):
            # two columns of captions in one table are two things to read
            what = (path.resolve(), source.form, source.text_column)
            if what in met:
                LOG.warning("source '%s': %s was met as %s", source.source, named, met[what])
                continue
            met[what] = f"{source.source}: {named}"
            if (source.source, named) in found:
                raise InputError(
                    f"source '{source.source}': {named} is read in two ways by sources of this "
                    "name; give each a name of its own"
                )
            found[source.source, named] = source.model_copy(update={"path": named}), path
    return list(found.values())


def _files_of(profile: Profile, source: CaptionSource) -> list[tuple[str, Path]]:
    """(as the profile names it, path) of each file of a source."""
    if downloads.is_remote(source.path):
        return [(source.path, downloads.fetch(downloads.remote(source.path)))]
    data = profile.path("")
    return [
        (_named(path, data), path) for path in find_files(source.source, profile.path(source.path))
    ]


def _named(path: Path, data: Path) -> str:
    """A file's path relative to `data` if it lies there."""
    plain = Path(os.path.normpath(path))
    folder = Path(os.path.normpath(data))
    return (plain.relative_to(folder) if plain.is_relative_to(folder) else plain).as_posix()


def find_files(source: str, pattern: Path) -> list[Path]:
    """Files that a path or glob pattern names, sorted; InputError if there is none.

    Folders and files that are there by that name are meant, whatever signs they have. Else brackets
    stand for themselves, as in names of files, and where none has such a name, for one of the signs
    in them.
    """
    there, rest = Path(), list(pattern.parts)
    while rest and os.path.lexists(there / rest[0]):
        there /= rest.pop(0)
    for tried in (str(Path(*rest)).replace("[", "[[]"), str(Path(*rest))):
        sought = str(Path(glob.escape(str(there)), tried))
        found = sorted(Path(name) for name in glob.glob(sought, recursive=True))  # noqa: PTH207
        files = [path for path in found if path.is_file()]
        if files:
            return files
    raise InputError(f"source '{source}': no file {pattern}; give its path, or set `data`")
