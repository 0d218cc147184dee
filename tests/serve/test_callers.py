"""Who may ask, for whom, and what each sees."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from storygen.accounts.keys import Keys
from storygen.accounts.limiter import TRIES
from storygen.accounts.users import Users
from storygen.engine.fake import FakeEngine
from storygen.serve import callers
from storygen.serve.app import application
from storygen.story.database import Database
from tests.serve.api import until

BODY = {"model": "mystery", "prompt": "a"}


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await Database.open(f"sqlite+aiosqlite:///{tmp_path / 'stories.db'}")
    yield database
    await database.close()


@pytest.fixture
async def engine() -> FakeEngine:
    engine = FakeEngine()
    await engine.start()
    return engine


@pytest.fixture
async def http(engine: FakeEngine, database: Database) -> AsyncIterator[httpx.AsyncClient]:
    app = application(engine, keys=Keys(database, own="the installation's own"))
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://models.example") as client:
        yield client


def showing(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def test_requests_are_those_of_the_keys_user(
    http: httpx.AsyncClient, engine: FakeEngine, database: Database
):
    """Under the name that the chat has for them, so that limits and quotas are one. With the
    installation's own key a chat asks for whom it names; nobody's own does that."""
    ada = await Users(database).add("Ada", None)
    root = await Users(database).add("Root", None, is_admin=True)
    keys = Keys(database)
    for name in ("Ada", "Root"):
        for body in (BODY, BODY | {"user": "ben"}):
            headers = showing(await keys.add(name))
            answer = await http.post("/v1/completions", json=body, headers=headers)
            assert answer.status_code == 200, answer.text
    own = showing("the installation's own")
    for body in (BODY, BODY | {"user": "ben"}):
        assert (await http.post("/v1/completions", json=body, headers=own)).status_code == 200
    asked = [request.user for request in engine.requests]
    assert asked == [ada.id, ada.id, root.id, root.id, "", "/ben"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer "},
        {"authorization": "Basic YTpi"},
        {"cookie": "storygen_sign_in=x; access_token=y"},
    ],
)
async def test_without_a_key_nothing_is_said(http: httpx.AsyncClient, headers: dict[str, str]):
    for path in ("/v1/models", "/v1/health", "/v1/nothing", "/v1/models/mystery"):
        answer = await http.get(path, headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_wrong_keys_are_not_tried_for_long_and_keep_nobody_out(
    http: httpx.AsyncClient, database: Database
):
    await Users(database).add("Ada", None)
    key = await Keys(database).add("Ada")
    for _ in range(TRIES):
        assert (await http.get("/v1/models", headers=showing("sg-wrong"))).status_code == 401
    answer = await http.get("/v1/models", headers=showing("sg-wrong"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_many_wrong_keys")
    assert 0 < int(answer.headers["retry-after"]) <= 60
    assert (await http.get("/v1/models", headers=showing(key))).status_code == 200
    await Users(database).disable("Ada")
    assert (await http.get("/v1/models", headers=showing(key))).status_code == 429


async def test_a_users_own_model_is_nobody_elses(
    http: httpx.AsyncClient, engine: FakeEngine, database: Database
):
    """Not even an administrator's; a chat knows for itself whose it is."""
    users, keys = Users(database), Keys(database)
    ada = await users.add("Ada", None)
    await users.add("Ben", None)
    await users.add("Root", None, is_admin=True)
    engine._models[1] = replace(engine._models[1], owner=ada.id)
    seen = {}
    shown = {name: await keys.add(name) for name in ("Ada", "Ben", "Root")}
    for name, key in (shown | {"a chat": "the installation's own"}).items():
        headers = showing(key)
        listed = (await http.get("/v1/models", headers=headers)).json()["data"]
        answers = [await http.get("/v1/models/fantasy", headers=headers)]
        for path, field in [
            ("/v1/completions", "prompt"),
            ("/v1/score", "text"),
            ("/v1/next_tokens", "prompt"),
            ("/v1/next_words", "prompt"),
            ("/tokenize", "prompt"),
        ]:
            body = {"model": "fantasy", field: "a"}
            answers.append(await http.post(path, json=body, headers=headers))
        seen[name] = (len(listed), {answer.status_code for answer in answers})
    theirs, others = (2, {200}), (1, {404})
    assert seen == {"Ada": theirs, "Ben": others, "Root": others, "a chat": theirs}


async def test_whoever_reads_no_answer_may_ask_for_so_many(
    engine: FakeEngine, database: Database, monkeypatch: pytest.MonkeyPatch
):
    """Each is kept until it is read."""
    monkeypatch.setattr(callers, "MOST_OPEN", 2)
    for name in ("Ada", "Ben"):
        await Users(database).add(name, None)
    keys = Keys(database, own="the installation's own")
    ada, ben = showing(await keys.add("Ada")), showing(await keys.add("Ben"))
    app, n_begun = application(engine, keys=keys), 0

    async def unread(scope: Scope, receive: Receive, send: Send) -> None:
        async def never(message: Message) -> None:
            nonlocal n_begun
            n_begun += 1
            await asyncio.Event().wait()

        await app(scope, receive, never)

    async def status(through: ASGIApp, headers: dict[str, str]) -> int:
        transport = httpx.ASGITransport(app=through)
        async with httpx.AsyncClient(transport=transport, base_url="http://models.example") as http:
            return (await http.get("/v1/models", headers=headers)).status_code

    waiting = [asyncio.create_task(status(unread, ada)) for _ in range(2)]
    waiting += [
        asyncio.create_task(status(unread, showing("the installation's own"))) for _ in range(3)
    ]
    await until(lambda: n_begun == 5)
    assert (await status(app, ada), await status(app, ben)) == (429, 200)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert await status(app, ada) == 200
