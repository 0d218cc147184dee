"""What machines ask of whatever serves an engine: whether it lives, whether it can write, and what
is measured of it. No answer names a writer, a story or a file."""

import hmac
from typing import Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from storygen import metrics
from storygen.engine.interface import Engine
from storygen.hosts import is_loopback

FIRST_WORDS = "The"  # after which a model has to write a token
FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-real-ip")  # a proxy tells of somebody else
NOT_KEPT = {"cache-control": "no-store"}


class Readiness(Protocol):
    """Whether passages can be written."""

    @property
    def is_alive(self) -> bool:
        """Whether the engine runs."""
        ...

    async def reason(self) -> str | None:
        """Why nothing can be written now; None when it can. Measured, too."""
        ...


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
        opening_seconds=health.opening_seconds,
        stuck_models=len(health.stuck),
    )


def standstill(engine: Engine) -> str | None:
    """Why an engine can write nothing, as far as it says so itself."""
    health = engine.health()
    if not health.is_alive:
        return "the engine has stopped"
    if health.stuck and any(model.name in health.stuck for model in engine.models()[:1]):
        return "the first model takes too long to be opened"
    return None


def _is_local(request: Request) -> bool:
    """Whether a program on this machine asks for itself."""
    is_forwarded = any(name in request.headers for name in FORWARDED)
    return request.client is not None and is_loopback(request.client.host) and not is_forwarded


def _shows(request: Request, token: str) -> bool:
    shown = request.headers.get("authorization", "")
    return bool(token) and hmac.compare_digest(shown.encode(), f"Bearer {token}".encode())
