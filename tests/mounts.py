"""Disks as a mount makes them: one that nobody can write to, one that is soon full."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing can be written in a folder, by whomever."""
    with _mounted(folder, ["--bind", str(folder)], ["-o", "remount,bind,ro"]):
        yield


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """An empty disk of few bytes at a folder, which is made."""
    folder.mkdir()
    with _mounted(folder, ["-t", "tmpfs", "-o", f"size={size}", "tmpfs"]):
        yield


@contextmanager
def _mounted(folder: Path, *commands: list[str]) -> Iterator[None]:
    for command in commands:
        done = subprocess.run(["mount", *command, str(folder)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a mount takes more rights than these: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)
