"""What machines ask of a server that is the API alone: whether it lives, whether it can write, and
what is measured of it."""

import asyncio
import hmac
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from storygen import metrics
from storygen.engine.interface import Engine
from storygen.errors import BusyError, StorygenError
from storygen.hosts import is_loopback
from storygen.params import SamplingParams
from storygen.serve.refusals import NOT_KEPT, Answer, Refused

FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-real-ip")  # a proxy tells of somebody else
FIRST_WORDS = "The"


class Readiness:
    """Whether the first model can write: found out by having it write a token, once it could not be
    said before."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._has_written = False
        self._trying = asyncio.Lock()

    async def reason(self) -> str | None:
        """Why nothing can be written now; None when it can."""
        if not self._engine.health().is_alive:
            return "the engine has stopped"
        async with self._trying:
            failure = None if self._has_written else await self._failure()
        self._has_written = failure is None
        metrics.READY.set(failure is None)
        return failure

    async def _failure(self) -> str | None:
        models = self._engine.models()
        if not models:
            return "there is no model"
        params = SamplingParams(max_new_tokens=1, seed=0)
        try:
            stream = self._engine.stream(models[0].name, FIRST_WORDS, params)
            async with aclosing(stream) as segments:
                async for _ in segments:
                    pass
        except BusyError:  # so it writes
            return None
        except StorygenError as error:
            return f"the first model cannot write: {type(error).__name__}"
        return None


def routes(engine: Engine, token: str) -> list[Route]:
    """/health, /ready and /metrics; whoever shows the token reads the last from anywhere."""
    readiness = Readiness(engine)

    async def health(request: Request) -> Response:
        alive = engine.health().is_alive
        status = "ok" if alive else "the engine has stopped"
        return Answer({"status": status}, 200 if alive else 503, NOT_KEPT)

    async def ready(request: Request) -> Response:
        reason = await readiness.reason()
        if reason is None:
            return Answer({"status": "ready"}, headers=NOT_KEPT)
        return Answer({"status": "not ready", "reason": reason}, 503, NOT_KEPT)

    async def measured(request: Request) -> Response:
        if not (_is_local(request) or _shows(request, token)):
            sentence = "This is for this machine, or for who shows STORYGEN_METRICS_TOKEN."
            return Refused(403, sentence).response()
        return Response(metrics.exposition(), headers=NOT_KEPT, media_type=metrics.CONTENT_TYPE)

    return [
        Route("/health", health, methods=["GET"]),
        Route("/ready", ready, methods=["GET"]),
        Route("/metrics", measured, methods=["GET"]),
    ]


def _is_local(request: Request) -> bool:
    """Whether a program on this machine asks for itself."""
    is_forwarded = any(name in request.headers for name in FORWARDED)
    return request.client is not None and is_loopback(request.client.host) and not is_forwarded


def _shows(request: Request, token: str) -> bool:
    shown = request.headers.get("authorization", "")
    return bool(token) and hmac.compare_digest(shown.encode(), f"Bearer {token}".encode())
