"""Answers in pieces, and what becomes of the work when nobody waits for it any more."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from storygen.incoming import GoneAway, unless_gone
from storygen.serve.completions import Event
from storygen.serve.refusals import NOT_KEPT, refused

HEADERS = NOT_KEPT | {"x-accel-buffering": "no"}  # or nginx would collect the pieces
SEND_SECONDS = 60.0  # for one piece to be taken
logger = logging.getLogger(__name__)


class EventStream(Response):
    """Server-sent events. An error is the last of them, for the status has been sent."""

    media_type = "text/event-stream"

    def __init__(self, first: Event | None, rest: AsyncGenerator[Event, None]) -> None:
        """first was waited for, so that whoever is refused is told by the status."""
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._first, self._rest = first, rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it, or as much as is wanted."""
        async with aclosing(self._rest), sending():
            await unless_gone(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        async def put(text: str, more: bool = True) -> None:
            body = text.encode("ascii")
            await taken(send, {"type": "http.response.body", "body": body, "more_body": more})

        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await taken(send, start)
        try:
            if self._first is not None:
                await put(_as_event(self._first))
            async for event in self._rest:
                await put(_as_event(event))
        except (GoneAway, OSError):
            raise
        except Exception as error:
            await put(_as_event(refused(error).body), more=False)
        else:
            await put("data: [DONE]\n\n", more=False)


@asynccontextmanager
async def sending() -> AsyncIterator[None]:
    """Ends where the client goes away."""
    try:
        yield
    except (GoneAway, OSError):
        logger.debug("A client went away.")


async def taken(send: Send, message: Message) -> None:
    """Send it; GoneAway where nobody takes it in time."""
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await send(message)
    except TimeoutError:
        logger.warning("A client did not read what it was sent, and its answer was ended.")
        raise GoneAway from None


def _as_event(event: Event) -> str:
    if isinstance(event, str):
        return f": {event}\n\n"
    return f"data: {spelt(event)}\n\n"


def spelt(content: Any) -> str:
    """JSON in ASCII, which also spells what is no character: a text may be half of one."""
    return json.dumps(content, separators=(",", ":"))
