"""How much the windows of one user may say in a time, so that none of them holds up the others'."""

import asyncio
import time
from collections.abc import Callable

from starlette.types import Message, Receive

MOST_AT_ONCE = 10_000_000  # characters; two messages as long as the socket takes
UNHURRIED = 5_000_000  # of them, which nobody has to wait for
EACH_SECOND = 1_000_000
LEAST = 10_000  # characters that anything said counts for: to take it in is work, too
MANY_USERS = 1000


class Budget:
    """What one user may say just now, in characters."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._left, self._at = float(MOST_AT_ONCE), now()

    @property
    def is_whole(self) -> bool:
        """Whether nothing has been said lately."""
        self._refill()
        return self._left >= MOST_AT_ONCE

    def takes(self, characters: int) -> float | None:
        """Count what was said; seconds until it may be heard, or None where it is too much."""
        self._refill()
        cost = max(characters, LEAST)
        if cost > self._left:
            return None
        self._left -= cost
        is_hurried = self._left < MOST_AT_ONCE - UNHURRIED
        return cost / EACH_SECOND if is_hurried else 0

    def _refill(self) -> None:
        now = self._now()
        self._left = min(MOST_AT_ONCE, self._left + (now - self._at) * EACH_SECOND)
        self._at = now


class Budgets:
    """Those of all users. Nobody gets a new one by coming anew."""

    def __init__(self) -> None:
        self._of: dict[str, Budget] = {}

    def of(self, owner: str) -> Budget:
        """The user's."""
        budget = self._of.get(owner)
        if budget is None:
            if len(self._of) >= MANY_USERS:
                self._of = {known: b for known, b in self._of.items() if not b.is_whole}
            budget = self._of[owner] = Budget()
        return budget


def measured(receive: Receive, accepts: Callable[[str | bytes], float | None]) -> Receive:
    """A socket's receive by which a window is heard after the seconds that `accepts` gives, and is
    gone where it gives none. Nothing more is read from the window meanwhile, so that it has to
    wait as well."""

    async def receive_accepted() -> Message:
        message = await receive()
        if message["type"] == "websocket.receive":
            said = message.get("text")
            wait = accepts(message.get("bytes") or b"" if said is None else said)
            if wait is None:
                return {"type": "websocket.disconnect", "code": 1008}
            if wait:
                await asyncio.sleep(wait)
        return message

    return receive_accepted
