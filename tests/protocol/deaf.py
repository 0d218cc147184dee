"""A window that says everything a page says and never reads a word: a socket by hand, since every
client reads as it waits."""

import asyncio
import json
import os
import socket
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from tests.protocol.conftest import Server

SMALLEST = 2048  # bytes that its system takes in for it
PONG_EVERY = 1.0  # seconds; it cannot know when it is asked


class Deaf:
    """Use it as `async with`; it answers pings from then on."""

    def __init__(self, server: Server, cookie: str, **headers: str) -> None:
        self._server = server
        self._headers = {"Host": f"127.0.0.1:{server.port}", "Cookie": cookie, **headers}
        self._socket = socket.socket()
        self._answering: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALLEST)
        self._socket.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self._socket, ("127.0.0.1", self._server.port))
        upgrade = self._headers | {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": "c3Rvcnlnc3RvcnlnZW4uLg==",
            "Sec-WebSocket-Version": "13",
        }
        lines = [f"{name}: {value}" for name, value in upgrade.items()]
        first = "GET /ws/socket.io/?EIO=4&transport=websocket HTTP/1.1"
        await loop.sock_sendall(self._socket, "\r\n".join([first, *lines, "", ""]).encode())
        said = await loop.sock_recv(self._socket, 100)  # the one answer that it waits for
        assert said.startswith(b"HTTP/1.1 101"), said
        auth = {"clientType": "webapp", "sessionId": str(uuid4()), "threadId": "", "userEnv": "{}"}
        await self._frame("40" + json.dumps(auth | {"chatProfile": ""}))
        await self.emit("connection_successful")
        self._answering = asyncio.create_task(self._answer())
        return self

    async def __aexit__(
        self, *_: type[BaseException] | BaseException | TracebackType | None
    ) -> None:
        assert self._answering is not None
        self._answering.cancel()
        self._socket.close()

    async def emit(self, *event: Any) -> None:
        """Say something. Raises OSError once the server has closed the socket."""
        await self._frame("42" + json.dumps(event))

    async def say(self, text: str) -> None:
        """Send a message."""
        said = {"id": str(uuid4()), "name": "writer", "type": "user_message", "output": text}
        await self.emit("client_message", {"message": said, "fileReferences": []})

    async def _answer(self) -> None:
        while True:
            await asyncio.sleep(PONG_EVERY)
            await self._frame("3")

    async def _frame(self, text: str) -> None:
        """One masked frame of text; see RFC 6455, 5.2."""
        content, mask = text.encode(), os.urandom(4)
        size = len(content)
        length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        masked = bytes(byte ^ mask[n % 4] for n, byte in enumerate(content))
        frame = b"\x81" + length + mask + masked
        await asyncio.get_running_loop().sock_sendall(self._socket, frame)
