"""Bodies that are large, slow or many: each is refused before it costs the others anything."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from storygen.serve import bodies
from storygen.serve.bodies import Bodies
from storygen.serve.refusals import Refused
from tests.serve.test_requests import FakeHttp, is_told

KIND = {"content-type": "application/json"}
BODY = json.dumps({"model": "mystery", "prompt": "It was dark.", "max_tokens": 1}).encode()


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with FakeHttp() as client:
        yield client


class Slow:
    """The first bytes of a body, and the rest when it may go on."""

    def __init__(self) -> None:
        self.has_begun, self.may_go_on = asyncio.Event(), asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield BODY[:20]
        self.has_begun.set()
        await self.may_go_on.wait()
        yield BODY[20:]


async def post(http: httpx.AsyncClient, content: bytes | Slow) -> httpx.Response:
    return await http.post("/v1/completions", content=content, headers=KIND)


async def test_a_slow_body_is_refused_and_let_go(http, monkeypatch):
    monkeypatch.setattr(bodies, "READ_SECONDS", 0.0)
    answer = await post(http, Slow())
    assert (answer.status_code, is_told(answer)) == (408, True)
    monkeypatch.setattr(bodies, "READ_SECONDS", 60.0)
    assert (await post(http, BODY)).status_code == 200


@pytest.mark.parametrize(("bound", "status"), [("MOST_OF_USER", 429), ("MOST_TOGETHER", 503)])
async def test_bodies_in_memory_have_a_limit_together(http, monkeypatch, bound, status):
    """A thousand slow ones of 8 MB took 8 GB."""
    monkeypatch.setattr(bodies, bound, len(BODY) + 10)
    slow = Slow()
    first = asyncio.create_task(post(http, slow))
    await slow.has_begun.wait()
    answer = await post(http, BODY)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, "busy", None)
    assert int(answer.headers["retry-after"]) > 0
    slow.may_go_on.set()
    assert (await first).status_code == 200
    assert (await post(http, BODY)).status_code == 200  # nothing is counted any more


def said(*pieces: bytes | None) -> Request:
    """A request whose body comes so, and then no more; None is its sender going away."""
    left = list(pieces)

    async def receive() -> Message:
        if not left:
            await asyncio.Event().wait()
        piece = left.pop(0)
        if piece is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": not piece.endswith(b"}")}

    headers = [(name.encode(), value.encode()) for name, value in KIND.items()]
    return Request({"type": "http", "headers": headers}, receive)


async def test_one_user_leaves_room_for_others(monkeypatch):
    monkeypatch.setattr(bodies, "MOST_OF_USER", 2 * len(BODY))
    taken = Bodies()
    slow = [asyncio.create_task(taken.fields(said(BODY[:-1]), "ann")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Refused, match="your requests"):
        await taken.fields(said(BODY), "ann")
    assert (await taken.fields(said(BODY), "bob")).text("model") == "mystery"
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    assert (await taken.fields(said(BODY), "ann")).text("model") == "mystery"


async def test_who_goes_away_leaves_nothing_in_memory():
    taken = Bodies()
    with pytest.raises(ClientDisconnect):
        await taken.fields(said(BODY[:9], None), "ann")
    assert not taken._incoming._held


async def test_who_goes_away_while_sending_is_no_error_of_ours(http, caplog):
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    asked = said(BODY[:9], None)
    scope = {"method": "POST", "path": "/v1/completions", "query_string": b"", **asked.scope}
    scope["headers"] = [*scope["headers"], (b"host", b"127.0.0.1:8001")]
    await http._transport.app(scope, asked._receive, send)
    assert sent[0]["status"] == 499
    assert all(record.levelname != "ERROR" for record in caplog.records)


async def test_a_body_of_many_values_is_never_parsed(http, monkeypatch):
    """Eight million characters of them took half a second, in which no other passage moved."""
    parse = json.loads
    parsed: list[str] = []

    def noted(text: str, **more: Any) -> Any:
        parsed.append(text)
        return parse(text, **more)

    monkeypatch.setattr(json, "loads", noted)
    for piece in ("[],", "{},", "1,", '"",'):
        body = f'{{"model": "mystery", "prompt": [{piece * 60_000}"a"]}}'
        answer = await post(http, body.encode())
        assert answer.status_code == 400
        assert parsed == []
        assert "not in texts" in parse(answer.text)["error"]["message"]


@pytest.mark.parametrize("text", ["He said, [so], ", '"', "\\", "\n", "\u9727"])
async def test_a_prompt_of_any_million_characters_is_read(http, text):
    for ascii_only in (False, True):
        body = {"model": "mystery", "prompt": text * (1_000_000 // len(text))}
        content = json.dumps(body, ensure_ascii=ascii_only)
        answer = await http.post("/tokenize", content=content.encode(), headers=KIND)
        assert answer.status_code == 200, answer.text[:200]
