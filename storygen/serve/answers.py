"""Answers in JSON that may be long: spelt while others have their turns, and sent to who reads."""

import asyncio
from collections.abc import Iterator
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from storygen.serve.refusals import NOT_KEPT
from storygen.serve.streaming import sending, spelt, taken

AT_ONCE = 500  # members of a list that are spelt before others have their turn
PIECE = 250_000  # bytes that are sent before it is seen whether they are taken


class Answer(Response):
    """One that is known as a whole before it is sent; where nobody takes it, it is ended."""

    media_type = "application/json"

    @classmethod
    async def of(cls, content: dict[str, Any]) -> "Answer":
        """What says this."""
        parts = []
        for part in _parts(content):
            parts.append(part)
            if len(part) > AT_ONCE:
                await asyncio.sleep(0)
        return cls("".join(parts), headers=NOT_KEPT)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, piece by piece."""
        body = bytes(self.body)
        status, headers = self.status_code, self.raw_headers
        async with sending():
            await taken(send, {"type": "http.response.start", "status": status, "headers": headers})
            for at in range(0, len(body), PIECE):
                piece, more = body[at : at + PIECE], at + PIECE < len(body)
                await taken(send, {"type": "http.response.body", "body": piece, "more_body": more})


def _parts(content: Any) -> Iterator[str]:
    """JSON of it, which joined is what json.dumps gives."""
    if isinstance(content, dict) and content:
        for n, (name, value) in enumerate(content.items()):
            yield f"{',' if n else '{'}{spelt(name)}:"
            yield from _parts(value)
        yield "}"
    elif isinstance(content, list) and len(content) > AT_ONCE:
        for start in range(0, len(content), AT_ONCE):
            yield "," if start else "["
            yield spelt(content[start : start + AT_ONCE])[1:-1]
        yield "]"
    elif isinstance(content, list) and content and isinstance(content[0], dict):
        for n, value in enumerate(content):
            yield "," if n else "["
            yield from _parts(value)
        yield "]"
    else:
        yield spelt(content)
