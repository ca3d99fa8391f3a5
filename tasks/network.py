"""Whether something elsewhere can be had, asked before anything depends on it."""

from typing import Final

import httpx

TIMEOUT_S: Final = 4.0


def reachable(url: str) -> bool:
    """Whether a server answers that it has this file; no more than its header is fetched."""
    try:
        return httpx.head(url, timeout=TIMEOUT_S, follow_redirects=True).is_success
    except httpx.HTTPError:
        return False
