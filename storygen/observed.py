"""Every request with its number, its time and its outcome, in the log and in the metrics."""

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from storygen import logs, metrics

NUMBER = b"x-request-id"
logger = logging.getLogger(__name__)


class Observed:
    """ASGI middleware, the outermost: what is done for a request carries its number.

    It is known by the template of its route alone: what was typed into an address may be prose.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "websocket":
            with logs.numbered():
                await self._app(scope, receive, send)
        else:  # the server's start and end
            await self._app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status = time.perf_counter(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (NUMBER, number.encode())]
            await send(message)

        with logs.numbered() as number:
            try:
                await self._app(scope, receive, noted)
            finally:
                seconds = time.perf_counter() - began
                route = template(scope)
                metrics.answered(route, scope["method"], status, seconds)
                asked = {"route": route, "status": status, "ms": round(1000 * seconds, 1)}
                logger.debug("Answered", extra={"fields": asked})


def template(scope: Scope) -> str:
    """The route that answered, as it is written in the source; `other` for none.

    FastAPI notes its own routes alone: those that are Starlette's are known by what answers there.
    """
    route = scope.get("route")
    if route is None and "endpoint" in scope:
        served = scope["app"].routes
        route = next((r for r in served if getattr(r, "endpoint", None) is scope["endpoint"]), None)
    return str(getattr(route, "path", "other"))
