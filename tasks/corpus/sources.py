"""Where a profile's captions come from: files and patterns here, addresses elsewhere."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.corpus import downloads
from tasks.errors import InputError

if TYPE_CHECKING:
    from tasks.profile import Profile
    from tasks.settings import CaptionSource


def caption_files(profile: Profile) -> list[tuple[CaptionSource, Path]]:
    """Every caption file of the profile with its source; one from elsewhere is fetched."""
    return [(source, path) for source in profile.sources for path in _files_of(profile, source)]


def _files_of(profile: Profile, source: CaptionSource) -> list[Path]:
    if downloads.is_remote(source.path):
        return [downloads.fetch(downloads.remote(source.path))]
    return find_files(source.source, profile.path(source.path))


def find_files(source: str, pattern: Path) -> list[Path]:
    """Files that a path or glob pattern names, sorted; InputError if there is none."""
    found = sorted(Path(name) for name in glob.glob(str(pattern)))  # noqa: PTH207
    files = [path for path in found if path.is_file()]
    if not files:
        raise InputError(f"source '{source}': no file {pattern}; give its path, or set `data`")
    return files
