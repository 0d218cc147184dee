"""Chainlit's page tells the server its session, so that a balancer before several servers can send
it to the same one again. Ours has a cookie of its own (deploy/nginx.conf), the same for all windows
of a browser: the answer is all that the page needs, and nothing of what it sends is read or kept,
where Chainlit's own route fails on what it does not expect."""

from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from storygen.chat.answering import answering

TELL = "/set-session-cookie"


def routes() -> list[Route]:
    """The one route."""
    return [Route(TELL, answering(told), methods=["POST"])]


async def told(owner: str, request: Request) -> Any:
    """Nothing."""
    return {}
