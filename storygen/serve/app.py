"""The API's routes, and an application of nothing else; docs/api.md has what they take and give.

Whoever makes an engine starts and closes it.
"""

from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from storygen import machines
from storygen.accounts.keys import Keys
from storygen.catalogue import ModelInfo, open_to
from storygen.engine.interface import Engine, TokenScore
from storygen.errors import ModelNotFoundError
from storygen.incoming import CLOSED, GoneAway, unless_gone
from storygen.observed import Observed
from storygen.serve.answers import Answer
from storygen.serve.asked import MOST_SCORED, asked
from storygen.serve.bodies import Bodies, Fields
from storygen.serve.callers import Caller, Callers
from storygen.serve.completions import Completion, Event
from storygen.serve.readiness import Readiness
from storygen.serve.refusals import Refused, refused
from storygen.serve.streaming import EventStream

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
LONGEST_TEXT = 1_000_000  # characters, as of a prompt
MOST_TOP, MOST_NEXT = 20, 1000

Ask = Callable[[Request, Caller], Coroutine[Any, Any, Response]]


def application(engine: Engine, *, keys: Keys | None, metrics_token: str = "") -> Starlette:
    """The API alone. Without keys it answers this machine only: whoever serves it sees to that."""
    served = [*routes(engine, keys), *machines.routes(Readiness(engine), metrics_token)]
    return Starlette(
        routes=served,
        middleware=[Middleware(Observed)],
        exception_handlers={HTTPException: _refusal},
    )


def routes(engine: Engine, keys: Keys | None) -> list[Route]:
    """What is asked under /v1, and /tokenize, which other servers have beside it."""
    api, callers = _Api(engine), Callers(keys)
    found = [
        ("/v1/models", "GET", api.models),
        ("/v1/models/{model:path}", "GET", api.model),
        ("/v1/health", "GET", api.health),
        ("/v1/completions", "POST", api.completions),
        ("/v1/score", "POST", api.score),
        ("/v1/next_tokens", "POST", api.next_tokens),
        ("/v1/next_words", "POST", api.next_words),
        ("/tokenize", "POST", api.tokenize),
    ]
    served = [
        Route(path, _Answering(callers, ask), methods=[method]) for path, method, ask in found
    ]
    nothing = _Answering(callers, _nothing_but(served))
    return [*served, Route("/v1/{path:path}", nothing, methods=METHODS)]


class _Api:
    def __init__(self, engine: Engine) -> None:
        self._engine, self._bodies = engine, Bodies()

    async def completions(self, request: Request, caller: Caller) -> Response:
        """Continue texts."""
        wanted = asked(await self._bodies.fields(request, caller.user))
        self._known(wanted.model, caller)
        completion = Completion(self._engine, wanted, caller.on_behalf_of(wanted.user))
        if not wanted.stream:
            return await Answer.of(await unless_gone(request.receive, completion.whole()))
        pieces = completion.pieces()
        first = await unless_gone(request.receive, _first(pieces))
        return EventStream(first, pieces)

    async def models(self, request: Request, caller: Caller) -> Response:
        """All that can be asked for."""
        data = [_card(info) for info in self._open_to(caller)]
        return await Answer.of({"object": "list", "data": data})

    async def model(self, request: Request, caller: Caller) -> Response:
        """One of them."""
        return await Answer.of(_card(self._known(request.path_params["model"], caller)))

    async def health(self, request: Request, caller: Caller) -> Response:
        """What the engine does."""
        return await Answer.of(asdict(self._engine.health()))

    async def tokenize(self, request: Request, caller: Caller) -> Response:
        """How many tokens a text has; which, is the model's own affair."""
        fields = await self._bodies.fields(request, caller.user)
        model = fields.text("model", default=None)
        prompt = fields.text("prompt", LONGEST_TEXT, default=None)
        fields.finish()
        context = self._known(model, caller).block_size
        count = await self._engine.count_tokens(model, prompt)
        return await Answer.of({"count": count, "max_model_len": context, "tokens": []})

    async def score(self, request: Request, caller: Caller) -> Response:
        """How probable each token of a text is."""
        fields = await self._bodies.fields(request, caller.user)
        model = fields.text("model", default=None)
        text = fields.text("text", LONGEST_TEXT, default=None)
        top = fields.whole("top", 0, MOST_TOP) or 0
        if len(text) * (1 + top) > MOST_SCORED:
            most = f"may have {MOST_SCORED // (1 + top):,} with top {top}: score it in parts"
            fields.refuse("text", f"has {len(text):,} characters and {most}")
        user = caller.on_behalf_of(fields.text("user"))
        fields.finish()
        self._known(model, caller)
        work = self._engine.score(model, text, user=user, top=top)
        tokens = await unless_gone(request.receive, work)
        return await Answer.of({"tokens": [_told(token) for token in tokens]})

    async def next_tokens(self, request: Request, caller: Caller) -> Response:
        """What may come next, by token."""
        model, prompt, n, user = _question(await self._bodies.fields(request, caller.user), caller)
        self._known(model, caller)
        work = self._engine.next_tokens(model, prompt, n, user=user)
        tokens = await unless_gone(request.receive, work)
        return await Answer.of({"tokens": [{"text": t.text, "logprob": t.logprob} for t in tokens]})

    async def next_words(self, request: Request, caller: Caller) -> Response:
        """What may come next, by word."""
        model, prompt, n, user = _question(await self._bodies.fields(request, caller.user), caller)
        self._known(model, caller)
        work = self._engine.next_words(model, prompt, n, user=user)
        return await Answer.of(
            {"words": [asdict(w) for w in await unless_gone(request.receive, work)]}
        )

    def _open_to(self, caller: Caller) -> list[ModelInfo]:
        """Everybody's models and the caller's own; who speaks for many sees to that."""
        models = self._engine.models()
        return models if caller.speaks_for_many else open_to(caller.user, models)

    def _known(self, name: str, caller: Caller) -> ModelInfo:
        models = {info.name: info for info in self._open_to(caller)}
        if name not in models:
            known = ", ".join(models) or "none"
            raise ModelNotFoundError(f"There is no model {name[:80]!r}. Models here: {known}.")
        return models[name]


class _Answering:
    """An ASGI application that answers who may ask; every error in OpenAI's form."""

    def __init__(self, callers: Callers, ask: Ask) -> None:
        self._callers, self._ask = callers, ask

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A request counts as its caller's until the answer is sent."""
        async with AsyncExitStack() as stack:
            response = await self._answer(Request(scope, receive), stack)
            await response(scope, receive, send)

    async def _answer(self, request: Request, stack: AsyncExitStack) -> Response:
        try:
            caller = await self._callers.caller(request)
            stack.enter_context(self._callers.one_more(caller))
            return await self._ask(request, caller)
        except (GoneAway, ClientDisconnect):
            return Response(status_code=CLOSED)
        except Exception as error:
            return refused(error).response()


def _nothing_but(served: Sequence[Route]) -> Ask:
    """Says that there is nothing, or that it is asked another way."""

    async def nothing(request: Request, caller: Caller) -> Response:
        path = request.url.path
        for route in served:
            if route.path_regex.match(path):
                methods = ", ".join(sorted(route.methods or ()))
                raise Refused(405, f"{path[:80]} is asked with {methods}, not {request.method}.")
        raise Refused(
            404, f"There is no {path[:80]} here. /v1/completions continues a text; see docs/api.md."
        )

    return nothing


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = f"{request.method} {request.url.path[:80]} is not served here: see docs/api.md."
    return Refused(error.status_code, told).response()


async def _first(pieces: AsyncGenerator[Event, None]) -> Event | None:
    return await anext(pieces, None)


def _question(fields: Fields, caller: Caller) -> tuple[str, str, int, str]:
    model = fields.text("model", default=None)
    prompt = fields.text("prompt", LONGEST_TEXT, default=None)
    n, user = fields.whole("n", 1, MOST_NEXT) or 10, fields.text("user")
    fields.finish()
    return model, prompt, n, caller.on_behalf_of(user)


def _card(info: ModelInfo) -> dict[str, Any]:
    more = {k: v for k, v in asdict(info).items() if k not in {"name", "directory"}}
    return {
        "id": info.name,
        "object": "model",
        "created": 0,
        "owned_by": "storygen",
        "max_model_len": info.block_size,
        "storygen": more,
    }


def _told(token: TokenScore) -> dict[str, Any]:
    told: dict[str, Any] = {"text": token.text, "logprob": token.logprob}
    return told | ({"top": [_told(other) for other in token.top]} if token.top else {})
