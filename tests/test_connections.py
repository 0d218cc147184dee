"""Connections whose other side does nothing, to a real server."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from storygen import connections
from storygen.connections import Connection

SMALLEST = 2048  # bytes that a system takes in for a socket


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """More than any buffer holds for /all, else two bytes."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/all":
        for _ in range(500):
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[uvicorn.Server]:
    monkeypatch.setattr(connections, "UNREAD", 1)
    monkeypatch.setattr(connections, "UNASKED", 1)
    config = uvicorn.Config(answer, port=0, http=Connection, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn tells nobody
        await asyncio.sleep(0.01)
    yield server
    server.should_exit = True
    await serving


async def opened(server: uvicorn.Server) -> socket.socket:
    """A connection to it that takes little in."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALLEST)
    client.setblocking(False)
    address = server.servers[0].sockets[0].getsockname()
    await asyncio.get_running_loop().sock_connect(client, address)
    return client


async def said(client: socket.socket) -> bytes:
    """What comes until it ends."""
    loop, told = asyncio.get_running_loop(), b""
    with suppress(ConnectionResetError):
        while piece := await loop.sock_recv(client, 10_000):
            told += piece
    return told


async def gone(server: uvicorn.Server) -> None:
    """Wait until the server has no connection any more."""
    async with asyncio.timeout(60):
        while server.server_state.connections:  # noqa: ASYNC110 - uvicorn tells nobody
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nHost: a\r\nAccept: "])
async def test_who_does_not_ask_is_gone(server: uvicorn.Server, begun: bytes) -> None:
    with await opened(server) as client:
        await asyncio.get_running_loop().sock_sendall(client, begun)
        async with asyncio.timeout(60):
            assert await said(client) == b""


async def test_who_does_not_read_is_gone(server: uvicorn.Server) -> None:
    with await opened(server) as client:
        request = b"GET /all HTTP/1.1\r\nHost: a\r\n\r\n"
        await asyncio.get_running_loop().sock_sendall(client, request)
        await asyncio.sleep(0.2)
        assert server.server_state.connections
        await gone(server)


async def test_who_takes_time_between_requests_and_in_one_is_answered(
    server: uvicorn.Server,
) -> None:
    loop = asyncio.get_running_loop()
    with await opened(server) as client:
        for _ in range(2):
            await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nHost: a\r\n")
            await asyncio.sleep(0.4)
            await loop.sock_sendall(client, b"\r\n")
            async with asyncio.timeout(60):
                told = b""
                while b"ok" not in told:
                    told += await loop.sock_recv(client, 1000)
            await asyncio.sleep(1.5)  # longer than it may be silent before it asks
