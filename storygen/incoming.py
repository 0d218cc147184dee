"""Bodies of requests as they come in: how large they may be, how slow, and how much of them is in
memory at a time."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.requests import Request


@dataclass(frozen=True)
class Bounds:
    """Bytes of one body, of one user's and of all together, and seconds until one is there."""

    one: int
    of_user: int
    together: int
    seconds: float


class NotTaken(Exception):
    """A body beyond its bounds, by the status that says so: 413 too large, 429 too much of this
    user's, 503 too much of all, 408 too slow."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Incoming:
    """The bodies that are in memory. One that comes slowly takes as little of it as has come."""

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()  # bytes of each user

    @asynccontextmanager
    async def body(self, request: Request, user: str, bounds: Bounds) -> AsyncIterator[bytearray]:
        """A user's body, which counts until the block ends. Raises NotTaken as soon as it is beyond
        its bounds, and ClientDisconnect."""
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > bounds.one:
            raise NotTaken(413)
        body = bytearray()
        try:
            await self._read(request, user, body, bounds)
            yield body
        finally:
            self._held[user] -= len(body)
            self._held = +self._held

    async def _read(self, request: Request, user: str, body: bytearray, bounds: Bounds) -> None:
        try:
            async with asyncio.timeout(bounds.seconds):
                async for chunk in request.stream():
                    body += chunk
                    self._held[user] += len(chunk)
                    if len(body) > bounds.one:
                        raise NotTaken(413)
                    if self._held[user] > bounds.of_user:
                        raise NotTaken(429)
                    if self._held.total() > bounds.together:
                        raise NotTaken(503)
        except TimeoutError:
            raise NotTaken(408) from None
