"""How often something may be tried: so many times a minute for each name and each address."""

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable

TRIES, SECONDS = 10, 60.0
MOST_KEYS = 20_000  # who is remembered; the longest unseen is forgotten first


class Limiter:
    """Counts tries by any number of keys at once; none of them may have too many."""

    def __init__(
        self,
        tries: int = TRIES,
        seconds: float = SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tries, self._seconds, self._clock = tries, seconds, clock
        self._recent: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, *keys: str) -> int:
        """Count a try; or, where one of the keys has had its tries, the seconds until the next.

        A try that is turned away does not count, so nobody is kept out by trying on and on.
        """
        now = self._clock()
        recent = [self._of(key, now) for key in keys]
        full = [times[0] for times in recent if len(times) >= self._tries]
        if full:
            return max(1, math.ceil(max(full) + self._seconds - now))
        for times in recent:
            times.append(now)
        return 0

    def _of(self, key: str, now: float) -> deque[float]:
        times = self._recent.setdefault(key, deque())
        self._recent.move_to_end(key)
        while times and times[0] <= now - self._seconds:
            times.popleft()
        if len(self._recent) > MOST_KEYS:
            self._recent.popitem(last=False)
        return times
