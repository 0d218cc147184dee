"""Clients that do not read: what they asked for waits, and ends."""

import asyncio
from collections.abc import AsyncGenerator
from urllib.parse import urlsplit

import pytest
from starlette.types import Message

from storygen.engine.fake import FakeEngine
from storygen.serve import answers, streaming
from storygen.serve.app import application
from storygen.serve.asked import asked
from storygen.serve.bodies import Fields
from storygen.serve.choices import merged
from storygen.serve.completions import Completion
from tests.serve.api import PATIENCE, served, until
from tests.serve.test_bodies import said

BODY = b'{"model": "mystery", "prompt": "a", "n": 2, "max_tokens": 99, "stream": true}'


class Writers:
    """Streams of many pieces, and how many of these were asked for."""

    def __init__(self, *ends: Exception | None, n: int = 1000) -> None:
        self.n_given = self.n_open = 0
        self.streams = [lambda end=end: self._write(n, end) for end in ends]

    async def _write(self, n: int, end: Exception | None) -> AsyncGenerator[str, None]:
        self.n_open += 1
        try:
            for _ in range(n):
                self.n_given += 1
                yield "piece"
            if end is not None:
                raise end
        finally:
            self.n_open -= 1


async def a_while() -> None:
    """Let everybody go on who can."""
    for _ in range(100):
        await asyncio.sleep(0)


async def test_writers_wait_for_the_reader():
    """64 prompts with 8 passages each took gigabytes while nobody read."""
    writers = Writers(*[None] * 8)
    pieces = merged(writers.streams)
    await anext(pieces)
    await a_while()
    assert (writers.n_given < 100, writers.n_open) == (True, 4)
    assert len([piece async for piece in pieces]) == 8 * 1000 - 1
    assert writers.n_open == 0


async def test_leaving_ends_writers_that_wait():
    writers = Writers(None, None, None)
    pieces = merged(writers.streams)
    await anext(pieces)
    await a_while()
    async with asyncio.timeout(PATIENCE):
        await pieces.aclose()
    assert writers.n_open == 0


async def test_an_error_ends_writers_that_wait():
    writers = Writers(None, None, ValueError("broken"))
    pieces = merged(writers.streams)
    await anext(pieces)
    await a_while()

    async def read_on() -> None:
        async for _ in pieces:
            pass

    with pytest.raises(ValueError, match="broken"):
        await asyncio.wait_for(read_on(), PATIENCE)
    assert writers.n_open == 0


async def test_an_error_while_all_are_ended_waits_for_nobody():
    async def stubborn() -> AsyncGenerator[str, None]:
        try:
            while True:
                yield "piece"
                await asyncio.sleep(0)
        finally:
            raise ValueError("not even that")

    pieces = merged([stubborn] * 3)
    await anext(pieces)
    await a_while()
    async with asyncio.timeout(PATIENCE):
        await pieces.aclose()


async def test_what_is_told_in_pieces_is_not_kept():
    engine = FakeEngine()
    await engine.start()
    body = {"model": "mystery", "prompt": "a", "stream": True, "logprobs": 1, "echo": True}
    completion = Completion(engine, asked(Fields(body)), "ann")
    told = [event async for event in completion.pieces() if isinstance(event, dict)]
    assert told[0]["choices"][0]["logprobs"]["token_logprobs"] == [None]
    [choice] = completion._choices
    assert (choice._text, choice._tokens) == ("", [])


@pytest.mark.parametrize("body", [BODY, BODY.replace(b"true", b"false")])
@pytest.mark.parametrize("n_sent", range(4))
async def test_an_answer_that_nobody_takes_is_ended(monkeypatch, body, n_sent):
    """The start of it, and any piece; one that is known as a whole, too."""
    monkeypatch.setattr(streaming, "SEND_SECONDS", 0.0)
    monkeypatch.setattr(answers, "PIECE", 100)
    engine = FakeEngine()
    await engine.start()
    sent: list[Message] = []

    async def send(message: Message) -> None:
        if len(sent) == n_sent:
            await asyncio.Event().wait()
        sent.append(message)

    request = said(body)
    scope = {"method": "POST", "path": "/v1/completions", "query_string": b"", **request.scope}
    scope["headers"] = [*scope["headers"], (b"host", b"127.0.0.1:8001")]
    async with asyncio.timeout(PATIENCE):
        await application(engine, keys=None)(scope, request._receive, send)
    assert (len(sent), engine.n_running) == (n_sent, 0)


async def test_a_client_that_reads_nothing_is_closed(monkeypatch):
    """Over a real socket, which holds some megabytes by itself."""
    monkeypatch.setattr(streaming, "SEND_SECONDS", 0.3)
    engine = FakeEngine(["a" * 50_000] * 4000)
    await engine.start()
    async with served(application(engine, keys=None)) as url:
        at = urlsplit(url)
        reader, writer = await asyncio.open_connection(at.hostname, at.port)
        head = f"POST /v1/completions HTTP/1.1\r\nhost: {at.netloc}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(BODY)}\r\n\r\n"
        writer.write(head.encode() + BODY)
        await until(lambda: engine.requests and engine.n_running == 0)
        assert [request.finish_reason for request in engine.requests] == ["cancelled"] * 2
        assert sum(len(request.segments) for request in engine.requests) < 1000
        async with asyncio.timeout(PATIENCE):
            assert b"[DONE]" not in await reader.read()  # up to the connection's end
        writer.close()
