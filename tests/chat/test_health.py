"""What machines are told: ready only once a model has written, and nothing to strangers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from storygen import machines
from storygen.chat import health
from storygen.chat.health import Readiness
from storygen.chat.state import Studio
from storygen.engine.fake import FakeEngine
from storygen.engine.interface import Health, Segment
from storygen.errors import BusyError, EngineError, StoryError
from storygen.observed import Observed

TOKEN = "a-token-that-nobody-guesses"
SECRET = "the heir is the gardener"


class Failing(FakeEngine):
    """Fails so many times before it writes."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures, self.error = failures, EngineError(SECRET)
        self.wait: Awaitable[Any] | None = None  # before the next passage
        self._is_running = True

    async def stream(self, *_: Any, **__: Any) -> AsyncIterator[Segment]:  # type: ignore[override]  # whatever it is asked
        if self.wait is not None:
            wait, self.wait = self.wait, None
            await wait
        if self.failures:
            self.failures -= 1
            raise self.error
        yield Segment("x", 1, "length")


def store(error: Exception | None = None, delay: float = 0.0) -> Any:
    """A store that answers, or does not."""

    async def stories(*_: Any, **__: Any) -> list[Any]:
        await asyncio.sleep(delay)
        if error is not None:
            raise error
        return []

    return SimpleNamespace(stories=stories)


def studio_with(engine: Any, **of_store: Any) -> Studio:
    studio = Studio(engine)
    studio.store = store(**of_store)
    return studio


async def ask(
    readiness: Readiness, path: str, token: str = "", address: str = "127.0.0.1", **headers: str
) -> httpx.Response:
    page = FastAPI()  # as Chainlit's, which does not note routes of ours
    page.router.routes[:] = machines.routes(readiness, token)
    page.add_middleware(Observed)
    transport = httpx.ASGITransport(page, client=(address, 50_000))
    async with httpx.AsyncClient(transport=transport, base_url="http://page") as http:
        return await http.get(path, headers={k.replace("_", "-"): v for k, v in headers.items()})


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a second try, or for a database."""
    monkeypatch.setattr(health, "TRY_AGAIN", 0.0)
    monkeypatch.setattr(health, "DATABASE_SECONDS", 0.05)


async def until_ready(readiness: Readiness) -> None:
    readiness.prove()
    assert readiness._proving is not None
    await asyncio.wait_for(readiness._proving, 10)
    assert await readiness.reason() is None


async def test_ready_is_what_has_written_a_token() -> None:
    readiness = Readiness(studio_with(Failing(0)))
    before = await ask(readiness, "/ready")
    assert before.status_code == 503
    assert before.json()["reason"] == "no model has written anything since the start"
    await until_ready(readiness)
    after = await ask(readiness, "/ready")
    assert (after.status_code, after.json()) == (200, {"status": "ready"})


async def test_a_model_that_fails_is_tried_again_and_its_words_are_kept_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    readiness = Readiness(studio_with(Failing(2)))
    readiness.prove()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    reason = await readiness.reason()
    assert reason is not None
    assert reason.startswith("the first model cannot write (number ")
    assert SECRET not in reason
    await until_ready(readiness)


async def test_a_model_that_fails_later_is_tried_anew() -> None:
    """The page stayed ready for ever once it was, then until it had been asked once more."""
    engine = Failing(0)
    studio = studio_with(engine)
    readiness = Readiness(studio)
    await until_ready(readiness)
    engine.failures, studio.failures = 5, 1
    first = await ask(readiness, "/ready")
    assert first.status_code == 503
    assert first.json()["reason"].startswith("the first model cannot write (number ")
    assert SECRET not in first.text
    assert readiness._proving is not None
    await asyncio.wait_for(readiness._proving, 10)
    assert (await ask(readiness, "/ready")).status_code == 200


async def test_a_model_that_neither_writes_nor_fails_is_not_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health, "TOKEN_SECONDS", 0.05)
    engine = Failing(0)
    studio = studio_with(engine)
    readiness = Readiness(studio)
    await until_ready(readiness)
    go_on = asyncio.Event()
    engine.wait, studio.failures = go_on.wait(), 1
    for _ in range(2):
        answer = await ask(readiness, "/ready")
        assert answer.status_code == 503
        assert answer.json()["reason"] == "a passage failed, and no token has been written since"
    go_on.set()
    assert readiness._proving is not None
    await asyncio.wait_for(readiness._proving, 10)
    assert (await ask(readiness, "/ready")).status_code == 200


async def test_a_model_that_writes_for_others_stays_as_ready_as_it_was() -> None:
    engine = Failing(0)
    studio = studio_with(engine)
    readiness = Readiness(studio)
    await until_ready(readiness)
    engine.failures, engine.error, studio.failures = 1, BusyError(SECRET), 1
    await until_ready(readiness)


async def test_without_a_model_nothing_is_ready() -> None:
    engine = Failing(0)
    engine.models = list  # type: ignore[method-assign]  # none
    readiness = Readiness(studio_with(engine))
    readiness.prove()
    await asyncio.sleep(0)
    assert await readiness.reason() == "there is no model"


@pytest.mark.parametrize("broken", [{"error": StoryError(SECRET)}, {"delay": 5.0}])
async def test_a_database_that_does_not_answer_is_said(broken: dict[str, Any]) -> None:
    studio = studio_with(Failing(0))
    readiness = Readiness(studio)
    await until_ready(readiness)
    studio.store = store(**broken)
    answer = await ask(readiness, "/ready")
    assert answer.status_code == 503
    assert answer.json()["reason"].startswith("the database does not answer (number ")
    assert SECRET not in answer.text
    studio.store = store()
    assert (await ask(readiness, "/ready")).status_code == 200


async def test_however_many_ask_at_once_the_database_is_asked_once() -> None:
    studio = studio_with(Failing(0))
    readiness = Readiness(studio)
    await until_ready(readiness)
    questions = 0

    async def stories(*_: Any, **__: Any) -> list[Any]:
        nonlocal questions
        questions += 1
        for _turn in range(5):  # of the loop, in which all of them ask
            await asyncio.sleep(0)
        return []

    studio.store = store()
    studio.store.stories = stories
    first = asyncio.create_task(readiness.reason())
    await asyncio.sleep(0)
    first.cancel()  # who asked first is gone, and the others are answered
    assert await asyncio.gather(*(readiness.reason() for _ in range(50))) == [None] * 50
    assert questions == 1
    assert await readiness.reason() is None
    assert questions == 2


async def test_a_page_that_ends_is_not_ready() -> None:
    studio = studio_with(Failing(0))
    readiness = Readiness(studio)
    await until_ready(readiness)
    studio.is_ending = True
    assert (await ask(readiness, "/ready")).status_code == 503
    assert (await ask(readiness, "/health")).json() == {"status": "ok"}


async def test_a_page_whose_engine_has_stopped_is_not_well() -> None:
    studio = studio_with(Failing(0))
    assert (await ask(Readiness(studio), "/health")).status_code == 200
    await studio.engine.close()
    assert (await ask(Readiness(studio), "/health")).status_code == 503


async def test_an_engine_that_stopped_at_no_passage_is_not_ready() -> None:
    """Programs, scores and fans can end one, too: it was not well, and ready for ever."""
    studio = studio_with(Failing(0))
    readiness = Readiness(studio)
    await until_ready(readiness)
    await studio.engine.close()
    assert studio.failures == 0
    answer = await ask(readiness, "/ready")
    assert (answer.status_code, answer.json()["reason"]) == (503, "the engine has stopped")


async def test_a_first_model_that_does_not_open_is_not_ready() -> None:
    """And another one is no reason: what is offered first can write."""
    studio = studio_with(Failing(0))
    readiness = Readiness(studio)
    await until_ready(readiness)
    first, *others = [model.name for model in studio.engine.models()]
    for stuck, status in ((first, 503), (others[0], 200)):
        studio.engine.health = lambda name=stuck: Health(is_alive=True, stuck=(name,))  # type: ignore[method-assign,misc]  # in its place
        answer = await ask(readiness, "/ready")
        assert answer.status_code == status
        assert (await ask(readiness, "/health")).status_code == 200
        load = machines.load_of(studio.engine, 8)
        assert load.stuck_models == 1


@pytest.mark.parametrize(
    ("address", "token", "headers", "status"),
    [
        ("127.0.0.1", "", {}, 200),
        ("::1", "", {}, 200),
        ("127.0.0.1", "", {"x_forwarded_for": "127.0.0.1"}, 403),  # somebody behind a proxy
        ("127.0.0.1", "", {"via": "1.1 proxy"}, 403),
        ("192.0.2.1", "", {}, 403),
        ("192.0.2.1", "", {"authorization": "Bearer "}, 403),
        ("192.0.2.1", TOKEN, {}, 403),
        ("192.0.2.1", TOKEN, {"authorization": f"Bearer {TOKEN[:-1]}"}, 403),
        ("192.0.2.1", TOKEN, {"authorization": f"Basic {TOKEN}"}, 403),
        ("192.0.2.1", TOKEN, {"authorization": f"Bearer {TOKEN}"}, 200),
    ],
)
async def test_metrics_are_for_this_machine_or_a_token(
    address: str, token: str, headers: dict[str, str], status: int
) -> None:
    readiness = Readiness(studio_with(Failing(0)))
    answer = await ask(readiness, "/metrics", token, address, **headers)
    assert answer.status_code == status
    assert ("storygen_ready" in answer.text) == (status == 200)
    assert TOKEN not in answer.text


async def test_requests_are_known_by_their_route_and_carry_a_number() -> None:
    readiness = Readiness(studio_with(Failing(0)))
    first = await ask(readiness, "/health?search=gardener")
    second = await ask(readiness, "/the-heir-is-the-gardener")
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    text = (await ask(readiness, "/metrics")).text
    assert 'route="/health"' in text
    assert 'route="other"' in text
    assert "gardener" not in text
