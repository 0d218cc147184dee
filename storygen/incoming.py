"""Requests as they come in: how large their bodies may be, how slow, and how much of them is in
memory at a time; and what becomes of the work when nobody waits for it any more."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.types import Receive

T = TypeVar("T")
CLOSED = 499  # what nginx logs for a client that went away; nobody reads it


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


class GoneAway(Exception):
    """The client closed its connection, or does not read what it is sent."""


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The outcome of work, which is cancelled when the client goes away: GoneAway, then. The
    request's body must have been read."""
    task, gone = asyncio.create_task(work), asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise GoneAway
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)  # the slot is free after this


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
