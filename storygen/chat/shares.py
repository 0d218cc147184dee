"""What one user may have of what all share: requests at work, threads, processes that convert.

Whoever asks for much waits in a line of their own, and everyone else is served meanwhile.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from storygen.chat.doors import visitor_of

AT_WORK, WAITING = 4, 16  # requests of a user
COUNTED = ("/api/", "/project/thread")  # what reads stories; the rest is small
RETRY_SECONDS = 5

Run = Callable[..., Awaitable[Any]]


class TooMany(Exception):
    """A user asks for more than may wait."""


class Shares:
    """At most so many at a time of each user, and of all together. No more than `waiting` of a
    user wait, where it is given."""

    def __init__(
        self, each: int, *, waiting: int | None = None, together: int | None = None
    ) -> None:
        self._each, self._waiting = each, waiting
        self._lines: dict[str, _Line] = {}
        self._together = None if together is None else asyncio.Semaphore(together)

    @asynccontextmanager
    async def of(self, owner: str) -> AsyncIterator[None]:
        """A share, for as long as the block takes; raises TooMany."""
        line = self._lines.get(owner) or _Line(self._each)
        if self._waiting is not None and line.length >= self._each + self._waiting:
            raise TooMany
        self._lines[owner] = line
        line.length += 1
        try:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(line.turn)
                if self._together is not None:
                    await stack.enter_async_context(self._together)
                yield
        finally:
            line.length -= 1
            if not line.length:
                del self._lines[owner]


class _Line:
    def __init__(self, each: int) -> None:
        self.turn, self.length = asyncio.Semaphore(each), 0


class Aside:
    """Threads of their own for long work: one at a time of each user, so that nobody's novel keeps
    everyone's waiting."""

    def __init__(self, threads: int = 2) -> None:
        self._threads = ThreadPoolExecutor(threads, "aside")
        self._shares = Shares(1, together=threads)
        self._left: set[asyncio.Task[None]] = set()  # turns of threads that nobody waits for

    @asynccontextmanager
    async def turn(self, owner: str) -> AsyncIterator[Run]:
        """A turn, and what runs work in a thread while it lasts. A thread that is still at work
        when the block ends, since whoever asked is gone, has the turn until it is done."""
        working: set[Future[Any]] = set()

        def run(work: Callable[..., Any], *args: Any) -> Awaitable[Any]:
            future = self._threads.submit(work, *args)
            working.add(future)
            future.add_done_callback(working.discard)
            return asyncio.wrap_future(future)

        async with AsyncExitStack() as share:
            await share.enter_async_context(self._shares.of(owner))
            try:
                yield run
            finally:
                if at_work := set(working):
                    left = asyncio.create_task(_done(at_work, share.pop_all()))
                    self._left.add(left)
                    left.add_done_callback(self._left.discard)

    async def run(self, owner: str, work: Callable[..., Any], *args: Any) -> Any:
        """What work returns, after those before it."""
        async with self.turn(owner) as run:
            return await run(work, *args)


async def _done(at_work: set[Future[Any]], share: AsyncExitStack) -> None:
    async with share:
        await asyncio.wait(map(asyncio.wrap_future, at_work))


class Crowd:
    """ASGI middleware behind the gate: how many requests of a user are at work."""

    def __init__(self, app: ASGIApp) -> None:
        self._app, self._shares = app, Shares(AT_WORK, waiting=WAITING)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        visitor = visitor_of(scope) if scope["type"] == "http" else None
        if visitor is None or not scope["path"].startswith(COUNTED):
            return await self._app(scope, receive, send)
        try:
            async with self._shares.of(visitor.owner):
                await self._app(scope, receive, send)
        except TooMany:
            sentence = (
                f"{AT_WORK + WAITING} of your requests are being answered here already: wait a "
                "moment, then try again."
            )
            body = {"error": sentence, "detail": sentence}  # as our script, and as Chainlit's
            headers = {"cache-control": "no-store", "retry-after": str(RETRY_SECONDS)}
            await JSONResponse(body, 429, headers)(scope, receive, send)
