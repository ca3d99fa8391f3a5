"""Prefect's server for a command's time, where none is set up: started while other things are read.

Prefect starts one too, but only when the first flow asks for it, and reads the whole server into
the flow's own process for that. It is the same program with the same settings.
"""

import atexit
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import httpx
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    get_current_settings,
    temporary_settings,
)

from tasks.errors import InputError

HOST: Final = "127.0.0.1"
FOR_A_WHILE: Final = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
}
"""What Prefect sets for its own temporary server."""
QUIET: Final = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "0",
    "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
}
"""Unless one asks for it: reports try for long where there is no network, and a server that ends
with its command tells, behind the last sentence, which events it has not written down."""
END_S: Final = 5.0
ANSWER_S: Final = 15.0
_started: list[str] = []
"""Addresses of servers that end with a command."""


def is_lasting() -> bool:
    """Whether Prefect has a server that is there when this process has ended."""
    return PREFECT_API_URL.value() not in (None, *_started)


@contextmanager
def server(*meanwhile: Callable[[], object]) -> Iterator[None]:
    """Have a server: the one that is set up, or one of this process's own.

    Args:
        meanwhile: what can be done while it starts, in this order.

    Raises:
        InputError: it does not come up, or nothing answers where one is set up.

    """
    address = PREFECT_API_URL.value()
    if address is not None:
        _check(address)
        for work in meanwhile:
            work()
        yield
        return
    port = _free_port()
    process = _start(port)
    # not sooner: Prefect's threads, which begin later and end before, send it what is left to send
    atexit.register(_end, process)
    try:
        for work in meanwhile:
            work()
    except BaseException:
        # nothing was asked of it yet; a kill within its migrations leaves none of them
        process.kill()
        process.wait()
        raise
    address = f"http://{HOST}:{port}/api"
    _wait(process, address)
    _started.append(address)
    # a beat per flow, of which each costs up to a second at the end, and which nobody listens to
    with temporary_settings({PREFECT_API_URL: address, "flows.heartbeat_frequency": None}):
        yield


def _start(port: int) -> subprocess.Popen[bytes]:
    found = find_spec("prefect")
    place = Path(str(found and found.origin)).parents[1]
    of_settings = get_current_settings().to_environment_variables(exclude_unset=True)
    return subprocess.Popen(  # noqa: S603
        [
            *(sys.executable, "-m", "uvicorn", "--app-dir", str(place)),
            *("--factory", "prefect.server.api.server:create_app"),
            *("--host", HOST, "--port", str(port)),
            *("--log-level", "error", "--lifespan", "on"),
        ],
        env={**QUIET, **os.environ, **FOR_A_WHILE, **of_settings},
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _check(address: str) -> None:
    """Stop before work starts if no server answers; what it answers is Prefect's to understand."""
    try:
        httpx.get(f"{address.rstrip('/')}/health", timeout=ANSWER_S)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise InputError(
            f"PREFECT_API_URL {address}: no Prefect server answers ({error}); start it, or unset "
            "that (also in prefect.toml and Prefect's profile), and a temporary one serves"
        ) from error


def _wait(process: subprocess.Popen[bytes], address: str) -> None:
    patience = PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()
    until = time.monotonic() + patience
    with httpx.Client(trust_env=False) as client:
        while time.monotonic() < until:
            if process.poll() is not None:
                raise InputError(
                    f"Prefect's temporary server ended with code {process.returncode} instead of "
                    f"starting; what it said stands above, what it keeps lies in "
                    f"{get_current_settings().home}"
                )
            try:
                if client.get(f"{address}/health").is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
    raise InputError(
        f"Prefect's temporary server has not started within {patience} s; set "
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS to wait longer"
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
