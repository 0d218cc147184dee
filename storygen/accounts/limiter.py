"""How often something may be tried: so many times a minute by a name, or from an address."""

import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

TRIES, SECONDS = 10, 60.0
MOST_KEYS = 20_000  # who is remembered
SHARE = 10  # of so many the one with the fewest tries is forgotten, where all have tried just now


class Limiter:
    """Counts tries by a key, of which none may have too many.

    What is turned away is not to be counted: so nobody is kept out by trying on and on, nor makes
    others be forgotten, whose tries would count anew.
    """

    def __init__(
        self,
        tries: int = TRIES,
        seconds: float = SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tries, self._seconds, self._clock = tries, seconds, clock
        self._recent: dict[str, deque[float]] = {}

    def wait(self, key: str) -> int:
        """The seconds until a key may be tried: 0 unless it has had its tries."""
        now = self._clock()
        times = self._of(key, now)
        if len(times) < self._tries:
            return 0
        return max(1, math.ceil(times[0] + self._seconds - now))

    def count(self, key: str) -> float:
        """Count a try; its moment, by which it can be taken back."""
        now = self._clock()
        if key not in self._recent and len(self._recent) >= MOST_KEYS:
            self._forget(now)
        self._recent.setdefault(key, deque()).append(now)
        return now

    def take_back(self, key: str, moment: float) -> None:
        """Let a try count no more; it may be forgotten already."""
        with suppress(ValueError):
            self._recent.get(key, deque()).remove(moment)

    def _of(self, key: str, now: float) -> deque[float]:
        times = self._recent.get(key, deque())
        while times and times[0] <= now - self._seconds:
            times.popleft()
        return times

    def _forget(self, now: float) -> None:
        """Make room: of those whose tries are over, or else of those that had the fewest."""
        living = {key: times for key, times in self._recent.items() if self._of(key, now)}
        if len(living) > MOST_KEYS - MOST_KEYS // SHARE:
            ranked = sorted(living, key=lambda key: len(living[key]))
            living = {key: living[key] for key in ranked[MOST_KEYS // SHARE :]}
        self._recent = living
