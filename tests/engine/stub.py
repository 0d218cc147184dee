"""A model server made of bytes: it says what a test wants it to, breaks off where it is told to,
and remembers what it was asked."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from storygen.engine.patience import Patience
from storygen.engine.remote import RemoteEngine

# Nothing here waits for long; what has to come, comes however slow the machine is.
HASTY = Patience(
    answer=20, connect=20, silence=20, lost=20, look=0.05, pause=0.001, longest_pause=0.005
)
TEXT = "It was a dark night; the  rain fell.\n\nNobody heard — é😀 — the bell ring twice."
MODELS = {"data": [{"id": "mystery", "max_model_len": 512, "owned_by": "vllm"}]}
OURS = {"data": [{"id": "mystery", "max_model_len": 512, "storygen": {"display_name": "Mystery"}}]}


@dataclass
class Asked:
    """A request."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


Answer = Callable[[Asked], bytes]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Stub:
    """Answers with bytes, headers included; cuts holds after how many bytes of a stream the next
    connections break off."""

    answer: Answer
    cuts: list[int] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        asked = await _read(reader)
        self.asked.append(asked)
        said = self.answer(asked)
        if asked.path == "/v1/completions" and self.cuts:
            said = said[: self.cuts.pop(0)]
        writer.write(said)
        await writer.drain()

    @property
    def passages(self) -> list[Any]:
        """The bodies of the requests for passages."""
        return [asked.body for asked in self.asked if asked.path == "/v1/completions"]


async def _read(reader: asyncio.StreamReader) -> Asked:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    method, path, _ = first.split(" ")
    headers = dict(line.lower().split(": ", 1) for line in lines if line)
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Asked(method, path, headers, json.loads(body) if body else None)


def http(body: bytes | Any, status: str = "200 OK", kind: str = "application/json", **more: str):
    """An answer."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", f"content-type: {kind}", "connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in more.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def stream(*events: Any) -> bytes:
    """A stream of events that ends as it should."""
    data = [event if isinstance(event, str) else json.dumps(event) for event in events]
    body = "".join(f"data: {line}\n\n" for line in [*data, "[DONE]"])
    return http(body.encode(), kind="text/event-stream")


def piece(text: str, reason: str | None = None, **more: Any) -> dict[str, Any]:
    """An event."""
    return {"choices": [{"index": 0, "text": text, "finish_reason": reason}], **more}


def tokens_of(text: str) -> list[str]:
    """A text in pieces of three characters."""
    return [text[at : at + 3] for at in range(0, len(text), 3)]


def foreign(text: str = TEXT, prompt: str = "Once") -> Answer:
    """A server that knows no marks, and one text: it says what comes after what it reads."""

    def answer(asked: Asked) -> bytes:
        if asked.path == "/v1/models":
            return http(MODELS)
        if asked.path == "/tokenize":
            return http({"count": len(asked.body["prompt"]) // 3 + 1})
        read = asked.body["prompt"]
        assert read.startswith(prompt), read
        said = text[len(read) - len(prompt) :]
        pieces = tokens_of(said)
        reason = "stop" if len(pieces) <= asked.body["max_tokens"] else "length"
        shown = [piece(part) for part in pieces[: asked.body["max_tokens"]]]
        return stream(*shown, piece("", reason))

    return answer


def marking(text: str = TEXT) -> Answer:
    """Our own server, with a letter as the mark of each token."""

    def answer(asked: Asked) -> bytes:
        if asked.path == "/v1/models":
            return http(OURS)
        if asked.path == "/tokenize":
            return http({"count": len(asked.body["prompt"].split())})
        done = len(asked.body["storygen"].get("after", ""))
        shown = [
            piece(part, storygen={"mark": "m", "tokens": 1}) for part in tokens_of(text)[done:]
        ]
        return stream(*shown, piece("", "stop", storygen={"finish_reason": "loop", "tokens": 0}))

    return answer


@asynccontextmanager
async def serving(answer: Answer, cuts: list[int] | None = None) -> AsyncIterator[Stub]:
    """A running stub."""
    stub = Stub(answer, cuts or [])
    async with listening(stub.serve) as stub.url:
        yield stub


@asynccontextmanager
async def listening(handle: Handler) -> AsyncIterator[str]:
    """Where connections are handled, each until it ends or whoever asked has gone."""
    handlers: set[asyncio.Task[None]] = set()

    async def handled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await handle(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        handlers.discard(task)

    server = await asyncio.start_server(handled, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await asyncio.sleep(0.005)  # what has just connected is handled, too
        while handlers:
            await asyncio.wait(handlers)


@asynccontextmanager
async def engine_at(url: str, key: str = "", **options: Any) -> AsyncIterator[RemoteEngine]:
    """A started engine."""
    engine = RemoteEngine(url, key, **({"patience": HASTY} | options))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()
