"""Processes told from later ones of the same number, also after a reboot or a step of the clock."""

import os
import socket
from pathlib import Path
from typing import Final

import psutil

BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


def mark_of(pid: int | None = None) -> str:
    """What tells a running process from all others; '' if it has ended.

    Machine, boot, number, and when it began: counted from the boot, so that it stays as it is when
    the clock is set.
    """
    number = os.getpid() if pid is None else pid
    began = _began(number)
    return f"{place_of()} {number} {began}" if began else ""


def place_of() -> str:
    """The machine, since its last boot."""
    return f"{socket.gethostname()} {_boot()}"


def is_running(mark: str) -> bool | None:
    """Whether the process with that mark still runs; None if that is another machine's matter."""
    machine, boot, number, began = [*mark.split(" "), "", "", "", ""][:4]
    if not number.isdigit():
        return False
    if machine != socket.gethostname():
        return None
    return boot == _boot() and _began(int(number)) == began


def pid_of(mark: str) -> int:
    """The process's number."""
    return int(mark.split(" ")[2])


def _boot() -> str:
    try:
        return BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return "boot"


def _began(pid: int) -> str:
    """Clock ticks from the boot to its start; '' if it has ended."""
    try:
        # the name, in brackets, may hold anything
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except FileNotFoundError:
        if BOOT.exists():
            return ""
    except OSError:
        return ""
    try:
        process = psutil.Process(pid)
        is_zombie = process.status() == psutil.STATUS_ZOMBIE
        return "" if is_zombie else str(process.create_time())
    except psutil.NoSuchProcess:
        return ""
