"""Upstream: the HTTP of a model server elsewhere. Whatever it answers becomes JSON or a sentence.

Nothing it sends is believed: its answers are bounded before they are read, redirects are not
followed, and what it says of an error is shortened, made printable, and freed of the key.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any

import httpx

from storygen.engine.sse import EventError, Events
from storygen.errors import BusyError, EngineError
from storygen.text import whole_characters

JSON = {"content-type": "application/json"}
MAX_ANSWER = 32_000_000  # bytes, several times what our own server answers
MOST_PIECES = 8  # that were read and not taken yet, of at most 64 kB each
MAX_TOLD = 300  # characters of what it says of an error
CONNECT_WITHIN = 5.0  # seconds
MOST_SECONDS = 3600.0  # a Retry-After that is believed


class LostError(EngineError):
    """The server was not reached, or broke off: asked again, it may answer."""


class LaterError(BusyError):
    """The server has too much to do, and says when to ask again."""

    def __init__(self, sentence: str, seconds: float | None) -> None:
        super().__init__(sentence)
        self.seconds = seconds


class RefusedError(EngineError):
    """The server answered, with a status that says no."""

    def __init__(self, sentence: str, status: int, code: str, told: str) -> None:
        super().__init__(sentence)
        self.status, self.code, self.told = status, code, told

    @property
    def is_unknown_route(self) -> bool:
        """Whether the server has no such route, whatever is asked there."""
        return self.status in (404, 405, 501) and "model" not in (self.code + self.told).lower()

    @property
    def is_about_context(self) -> bool:
        """Whether the prompt was more than the model reads, as the others say it."""
        return self.status == 400 and "context" in self.told.lower()


class Upstream:
    """One model server. Every method raises LostError, LaterError, RefusedError or, for what makes
    no sense, EngineError."""

    def __init__(self, url: str, key: str = "", connections: int = 64) -> None:
        """url is where its /v1 is, with or without that; so many connections there are at most."""
        self._root = url.rstrip("/").removesuffix("/v1")
        self._key = key
        # The client's own limit would count those that it lost as their opening was cancelled.
        self._room = asyncio.Semaphore(connections)
        headers = {"accept-encoding": "identity"}  # nothing small can become large
        if key:
            headers["authorization"] = f"Bearer {key}"
        self._client = httpx.AsyncClient(
            headers=headers,
            follow_redirects=False,  # the key is for this server
            trust_env=False,
            timeout=httpx.Timeout(None, connect=CONNECT_WITHIN),  # whoever asks has a patience
            limits=httpx.Limits(max_keepalive_connections=connections, keepalive_expiry=30),
            verify=ssl.create_default_context() if url.startswith("https:") else False,
        )

    async def close(self) -> None:
        """End all connections."""
        await self._client.aclose()

    async def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """The JSON object it answers with."""
        async with self._answer(method, path, body) as response:
            content = await _read(response, MAX_ANSWER)
        return _object(content)

    async def events(self, path: str, body: Any) -> AsyncGenerator[dict[str, Any], None]:
        """The JSON objects of a stream, until it says that it is done or, early, breaks off.
        Closing the generator ends the request."""
        async with self._answer("POST", path, body) as response:
            kind = response.headers.get("content-type", "")
            if not kind.startswith("text/event-stream"):
                shown = _printable(kind)[:40]
                raise EngineError(f"The model server answered with {shown!r}, not with a stream.")
            parser = Events()
            async with aclosing(_pieces(response)) as pieces:
                async for piece in pieces:
                    for data in _parsed(parser, piece):
                        if data.strip() == "[DONE]":
                            return
                        yield _object(self._without_key(data))

    def _without_key(self, told: str) -> str:
        return told.replace(self._key, "***") if self._key else told

    @asynccontextmanager
    async def _answer(self, method: str, path: str, body: Any) -> AsyncIterator[httpx.Response]:
        with _sentences():
            request = self._client.stream(
                method, self._root + path, content=_json(body), headers=JSON if body else None
            )
            async with self._room, request as response:
                if response.status_code != 200:
                    raise await self._refusal(response)
                yield response

    async def _refusal(self, response: httpx.Response) -> EngineError:
        """What a status other than 200 means."""
        status = response.status_code
        try:
            told, code = _told(await _read(response, 64_000))
        except EngineError:
            told, code = "", ""
        told = self._without_key(told)[:MAX_TOLD]
        because = f": {told}" if told else f" (HTTP {status})."
        if code == "engine_error":
            return LostError(told)
        if status in (429, 503) and code not in ("quota", "too_many_wrong_keys"):
            return LaterError(f"The model server is busy{because}", _retry_after(response))
        if status in (502, 504):
            return LostError(f"The model server cannot be reached by what is before it{because}")
        if status in (401, 403):
            sentence = "The model server does not accept STORYGEN_ENGINE_KEY"
        elif 300 <= status < 400:
            sentence = "The model server points to another address, which is not followed"
        elif status >= 500:
            sentence = "The model server failed"
        else:
            sentence = "The model server refused what it was asked"
        return RefusedError(sentence + because, status, code, told)


@contextmanager
def _sentences() -> Iterator[None]:
    """What can happen to a connection, said in words."""
    try:
        yield
    except httpx.ConnectError as error:
        if _is_of_tls(error):
            raise EngineError(
                "The model server's certificate or encryption is not to be trusted, so nothing was "
                "asked. Check STORYGEN_ENGINE_URL, and SSL_CERT_FILE for an authority of your own."
            ) from error
        raise LostError(UNREACHABLE) from error
    except httpx.ConnectTimeout as error:
        raise LostError(UNREACHABLE) from error
    except httpx.TransportError as error:
        raise LostError("The connection to the model server broke off.") from error
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        raise EngineError("The model server's answer makes no sense.") from error


UNREACHABLE = (
    "The model server cannot be reached. Whoever runs it can see why; the page goes on by itself "
    "once it is back."
)


def _is_of_tls(error: BaseException | None) -> bool:
    """Whether an error, or what is behind it, is one of encryption."""
    while error is not None:
        if isinstance(error, ssl.SSLError) or "SSL" in str(error)[:200]:
            return True
        error = error.__cause__ or error.__context__
    return False


async def _read(response: httpx.Response, most: int) -> bytes:
    """A body of so many bytes at most."""
    content = bytearray()
    async with aclosing(_pieces(response)) as pieces:
        async for piece in pieces:
            content += piece
            if len(content) > most:
                raise EngineError(
                    f"The model server's answer has more than {most // 1000:,} kB and was not read."
                )
    return bytes(content)


async def _pieces(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """A body as it comes. A task of its own reads it and closes it."""
    read = asyncio.Queue[bytes | Exception | None]()
    room = asyncio.Semaphore(MOST_PIECES)  # ends and errors need none

    async def reading() -> None:
        pieces = response.aiter_raw()
        assert isinstance(pieces, AsyncGenerator)
        # The response is closed first: each of httpx's generators, let go of half read, would wait
        # for that, and cannot in an event loop without hooks for them, such as Chainlit's.
        async with aclosing(pieces), aclosing(response):
            try:
                async for piece in pieces:
                    await room.acquire()
                    read.put_nowait(piece)
                read.put_nowait(None)
            except Exception as error:  # told where the body is read
                read.put_nowait(error)

    task = asyncio.create_task(reading())
    try:
        while (piece := await read.get()) is not None:
            if isinstance(piece, Exception):
                raise piece
            room.release()
            yield piece
    finally:
        if not response.is_closed:  # a connection whose closing is cancelled is lost to the pool
            task.cancel()
        await asyncio.wait([task])


def _parsed(parser: Events, piece: bytes) -> Iterator[str]:
    try:
        yield from parser.feed(piece)
    except EventError as error:
        raise EngineError(f"The model server sent {error}, which is no passage.") from error


def _json(body: Any) -> bytes | None:
    """A body; half characters, which no encoding has, become whole ones."""
    return None if body is None else whole_characters(json.dumps(body, ensure_ascii=False)).encode()


def _object(content: str | bytes) -> dict[str, Any]:
    """JSON as it should be: an object, without NaN."""
    try:
        found = json.loads(content, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise EngineError("The model server sent something that is no JSON object.")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _told(content: bytes) -> tuple[str, str]:
    """What an error's body says, and its code, or `prompt` where it is about that."""
    found = _object(content)
    error = found.get("error", found)
    if not isinstance(error, dict):
        error = {"message": error}
    texts = (error.get(name) for name in ("message", "detail", "error"))
    told = next((text for text in texts if isinstance(text, str)), "")
    code = "prompt" if error.get("param") == "prompt" else error.get("code")
    return _printable(told), code if isinstance(code, str) else ""


def error_in(event: dict[str, Any]) -> tuple[str, str, str] | None:
    """What an event says of an error, its type and its code, where it is one."""
    if not event.get("error"):
        return None
    error = event["error"]
    kind = error.get("type") if isinstance(error, dict) else None
    told, code = _told(json.dumps(event).encode())
    return told[:MAX_TOLD], kind if isinstance(kind, str) else "", code


def _retry_after(response: httpx.Response) -> float | None:
    """The seconds of Retry-After; a date is not read."""
    try:
        seconds = float(response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return min(max(seconds, 0.0), MOST_SECONDS) if seconds == seconds else None


def _printable(text: str) -> str:
    """A text as it can stand in a line."""
    shortened = " ".join(text[:4_000].split())
    return "".join(character for character in shortened if character.isprintable())
