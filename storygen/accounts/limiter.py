"""How often something may be tried: so many times a minute for each name and each address."""

import math
import time
from collections import deque
from collections.abc import Callable

TRIES, SECONDS = 10, 60.0
MOST_KEYS = 20_000  # who is remembered
SHARE = 10  # of so many the one with the fewest tries is forgotten, where all have tried just now


class Limiter:
    """Counts tries by any number of keys at once; none of them may have too many."""

    def __init__(
        self,
        tries: int = TRIES,
        seconds: float = SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tries, self._seconds, self._clock = tries, seconds, clock
        self._recent: dict[str, deque[float]] = {}

    def wait(self, *keys: str) -> int:
        """Count a try; or, where one of the keys has had its tries, the seconds until the next.

        A try that is turned away leaves no trace: nobody is kept out by trying on and on, nor
        makes others be forgotten, whose tries would count anew.
        """
        now = self._clock()
        full = [times[0] for key in keys if len(times := self._of(key, now)) >= self._tries]
        if full:
            return max(1, math.ceil(max(full) + self._seconds - now))
        if len(self._recent) + len(keys) > MOST_KEYS:
            self._forget(now)
        for key in keys:
            self._recent.setdefault(key, deque()).append(now)
        return 0

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
