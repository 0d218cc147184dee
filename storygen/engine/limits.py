"""Limits: how much one user may ask of an engine, and for how long anybody waits."""

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from storygen.engine.ledger import Ledger, Spent, text_of
from storygen.errors import QuotaError

MINUTE, HOUR, DAY = 60, 60 * 60, 24 * 60 * 60


@dataclass(frozen=True)
class Limits:
    """What an installation allows; seconds and bytes, and 0 tokens where there is no quota."""

    waiting_each: int | None = None  # requests of a user that may wait
    longest_wait: float = math.inf  # for the first step
    longest_passage: float = math.inf
    stuck_after: float = math.inf  # a step that takes longer never ends
    tokens_per_hour: int = 0
    tokens_per_day: int = 0
    ledger: Path | None = None  # a file that keeps what was written until the next start
    memory: float = math.inf  # of all models in memory


class Quotas:
    """How many tokens each user was written within the last hour and day, by the minute. Kept in
    a file at most once a minute: a kill forgets no more. For one thread."""

    def __init__(
        self,
        per_hour: int,
        per_day: int,
        clock: Callable[[], float] = time.time,
        kept_in: Path | None = None,
    ) -> None:
        """0 is no limit; without a file a restart forgets everything."""
        spans = ((HOUR, per_hour, "an hour"), (DAY, per_day, "a day"))
        self._spans = [span for span in spans if span[1]]
        self._clock = clock
        self._ledger = Ledger(kept_in) if kept_in and self._spans else None
        self._spent: Spent = self._ledger.read() if self._ledger else {}
        self._kept = clock() // MINUTE  # when
        self._promised: Counter[str] = Counter()

    @contextmanager
    def promised(self, user: str, tokens: int) -> Iterator[Callable[[int], None]]:
        """Room for a passage of so many tokens, and what counts those that are written. Raises
        QuotaError where there is none left; what others of the user may become counts."""
        self._check(user)
        self._promised[user] += tokens
        try:
            yield lambda n: self._spend(user, n)
        finally:
            self._promised[user] -= tokens
            if self._promised[user] <= 0:
                del self._promised[user]
            minute = self._clock() // MINUTE
            if self._ledger and self._kept != minute and self._ledger.write_aside(self._recent()):
                self._kept = minute

    async def keep(self) -> None:
        """Have a restart know what was written: it is in the file when this returns."""
        if self._ledger:
            await asyncio.to_thread(self._ledger.write, self._recent())

    def _recent(self) -> str:
        """What counts, as it is kept."""
        for user in list(self._spent):
            self._forget_old(user, self._clock())
        return text_of(self._spent)

    def _check(self, user: str) -> None:
        now = self._clock()
        spent = self._forget_old(user, now)
        for seconds, most, name in self._spans:
            recent = [(minute, n) for minute, n in spent if now - MINUTE * minute < seconds]
            written = sum(n for _, n in recent)
            if written + self._promised[user] >= most:
                oldest = MINUTE * recent[0][0] if recent else now - seconds + MINUTE
                raise QuotaError(
                    f"You have had, or are having, as much written as one may within {name} "
                    f"({most:,} pieces of words). Try again {when(oldest + seconds - now)}."
                )

    def _spend(self, user: str, tokens: int) -> None:
        if not self._spans or not tokens:
            return
        minute = int(self._clock() // MINUTE)
        spent = self._spent.setdefault(user, deque())
        before = spent.pop()[1] if spent and spent[-1][0] == minute else 0
        spent.append((minute, before + tokens))

    def _forget_old(self, user: str, now: float) -> deque[tuple[int, int]]:
        spent = self._spent.get(user, deque())
        while spent and now - MINUTE * spent[0][0] >= self._spans[-1][0]:
            spent.popleft()
        if not spent:
            self._spent.pop(user, None)
        return spent


def when(seconds: float) -> str:
    """How long to wait, as one says it.

    >>> when(2), when(18), when(200), when(5000)
    ('in a moment', 'in about 20 seconds', 'in about 4 minutes', 'in about 2 hours')
    """
    if seconds < 5:
        return "in a moment"
    if seconds < 55:
        return f"in about {10 * max(1, math.ceil(seconds / 10))} seconds"
    for size, name in ((MINUTE, "minute"), (HOUR, "hour")):
        n = math.ceil(seconds / size)
        if n < 60 or size == HOUR:
            return f"in about {n} {name}{'s' if n > 1 else ''}"
    raise AssertionError(seconds)
