"""Progress of long work, as log lines: how much is done, how fast, and how long it still takes."""

import logging
import time

LOG = logging.getLogger("tai")
INTERVAL_S = 5.0


class Progress:
    """Logs `name: done/total unit, rate, time left` at most every few seconds, and at the end.

    A total of 0 is one that is not known.
    """

    def __init__(self, name: str, total: int, unit: str, done: int = 0) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.done = self._resumed_at = done
        self._started = self._logged = time.monotonic()
        if done:
            LOG.info("%s: going on from %s of %s %s", name, f"{done:,}", f"{total:,}", unit)

    @property
    def rate(self) -> float:
        """Units per second since this process began."""
        elapsed = time.monotonic() - self._started
        return (self.done - self._resumed_at) / elapsed if elapsed > 0 else 0.0

    def add(self, count: int) -> None:
        """Say that `count` more units are done."""
        self.done += count
        now = time.monotonic()
        if now - self._logged < INTERVAL_S and self.done != self.total:
            return
        self._logged = now
        rate = f"{self.rate:,.0f}" if self.rate >= 10 else f"{self.rate:.2g}"
        if self.total:
            left = _clock((self.total - self.done) / self.rate if self.rate else 0.0)
            amount, end = f"{self.done:,} of {self.total:,}", f", {left} left"
        else:
            amount, end = f"{self.done:,}", ""
        LOG.info("%s: %s %s, %s/s%s", self.name, amount, self.unit, rate, end)

    def skip(self, count: int) -> None:
        """Say that `count` more units were done before this process began."""
        self.done += count
        self._resumed_at += count

    def reach(self, done: int) -> None:
        """Say that `done` units are done in all, by whoever did them."""
        if done > self.done:
            self.add(done - self.done)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
