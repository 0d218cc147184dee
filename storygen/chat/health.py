"""What machines ask: whether the page lives, whether it can write, and what is measured of it.

No answer names a writer, a story or a file.
"""

import asyncio
import hmac
import logging

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from storygen import logs, metrics
from storygen.chat.state import Studio
from storygen.engine.interface import Engine
from storygen.errors import BusyError, StorygenError
from storygen.hosts import is_loopback
from storygen.params import SamplingParams

TRY_AGAIN = 15.0  # seconds after which a model that failed is tried again
DATABASE_SECONDS = 2.0  # it may take to answer
TOKEN_SECONDS = 2.0  # whoever asks waits for a token after a passage failed
FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-real-ip")  # a proxy tells of somebody else
NOT_KEPT = {"cache-control": "no-store"}
FIRST_WORDS = "The"
ENDING = "storygen is being restarted"

logger = logging.getLogger(__name__)


class Readiness:
    """Whether passages can be written, found out by writing one."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._reason: str | None = "no model has written anything since the start"
        self._proving: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()  # since a passage failed
        self._failures = 0  # of writers' passages, when it was last tried

    @property
    def is_alive(self) -> bool:
        """Whether the engine runs; one that was stuck is started anew by itself."""
        return self._studio.engine.health().is_alive

    @property
    def windows(self) -> int:
        """How many windows are open, or may come back."""
        return len(self._studio.windows())

    def prove(self) -> None:
        """Have the first model write a token, in the background, until it has."""
        self._failures = self._studio.failures
        self._tried.clear()
        self._proving = asyncio.create_task(self._prove())

    async def reason(self) -> str | None:
        """Why nothing can be written now; None when it can. Where a writer's passage has failed
        it is tried anew, before anything is said."""
        if self._proving and self._proving.done() and self._failures != self._studio.failures:
            self.prove()
        reason = ENDING if self._studio.is_ending else await self._no_token()
        reason = reason or await self._database()
        metrics.READY.set(reason is None)
        return reason

    async def _no_token(self) -> str | None:
        """Why no token can be written, as far as it is known."""
        if self._reason is None and not self._tried.is_set():
            try:
                await asyncio.wait_for(self._tried.wait(), TOKEN_SECONDS)
            except TimeoutError:
                return "a passage failed, and no token has been written since"
        return self._reason

    async def _prove(self) -> None:
        while True:
            self._reason = await self._failure()
            self._tried.set()
            if self._reason is None:
                return
            await asyncio.sleep(TRY_AGAIN)

    async def _failure(self) -> str | None:
        """Why the first model cannot write; None when it just did."""
        models = self._studio.engine.models()
        if not models:
            return "there is no model"
        params = SamplingParams(max_new_tokens=1, seed=0)
        stream = self._studio.engine.stream(models[0].name, FIRST_WORDS, params)
        try:
            reasons = [segment.finish_reason async for segment in stream]
        except BusyError:  # it writes for others: as it was
            return self._reason
        except Exception as error:  # whatever it is, or nobody would try again
            logger.warning("The first model cannot write.", exc_info=error)
            return f"the first model cannot write (number {logs.number()} in the log)"
        return None if reasons[-1:] != ["error"] else "the first model cannot write"

    async def _database(self) -> str | None:
        try:
            async with asyncio.timeout(DATABASE_SECONDS):
                await self._studio.store.stories("", limit=1)  # nobody's
        except (StorygenError, TimeoutError) as error:
            logger.warning("The database does not answer.", exc_info=error)
            return f"the database does not answer (number {logs.number()} in the log)"
        return None


def routes(readiness: Readiness, token: str) -> list[Route]:
    """/health, /ready and /metrics; whoever shows the token reads the last from anywhere."""

    async def health(request: Request) -> Response:
        """The event loop turns, or this would not be said; and the engine has not stopped."""
        if readiness.is_alive:
            return JSONResponse({"status": "ok"}, headers=NOT_KEPT)
        return JSONResponse({"status": "the engine has stopped"}, 503, headers=NOT_KEPT)

    async def ready(request: Request) -> Response:
        reason = await readiness.reason()
        if reason is None:
            return JSONResponse({"status": "ready"}, headers=NOT_KEPT)
        return JSONResponse({"status": "not ready", "reason": reason}, 503, headers=NOT_KEPT)

    async def measured(request: Request) -> Response:
        if not (_is_local(request) or _shows(request, token)):
            sentence = "This is for this machine, or for who shows STORYGEN_METRICS_TOKEN."
            return JSONResponse({"error": sentence}, 403, headers=NOT_KEPT)
        await readiness.reason()  # as it is now
        metrics.WINDOWS.set(readiness.windows)
        return Response(metrics.exposition(), headers=NOT_KEPT, media_type=metrics.CONTENT_TYPE)

    return [
        Route("/health", health, methods=["GET"]),
        Route("/ready", ready, methods=["GET"]),
        Route("/metrics", measured, methods=["GET"]),
    ]


def load_of(engine: Engine, slots: int) -> metrics.Load:
    """What an engine does at this moment, for the metrics."""
    health = engine.health()
    return metrics.Load(
        running=health.running,
        waiting=health.waiting,
        slots=slots,
        models=len(health.models),
        model_bytes=health.model_bytes,
        restarts=health.restarts,
        step_seconds=health.step_seconds,
    )


def _is_local(request: Request) -> bool:
    """Whether a program on this machine asks for itself."""
    is_forwarded = any(name in request.headers for name in FORWARDED)
    return request.client is not None and is_loopback(request.client.host) and not is_forwarded


def _shows(request: Request, token: str) -> bool:
    shown = request.headers.get("authorization", "")
    return bool(token) and hmac.compare_digest(shown.encode(), f"Bearer {token}".encode())
