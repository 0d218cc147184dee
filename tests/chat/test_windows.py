"""Who opens a window, and what is left of one that is closed."""

from collections.abc import Collection
from typing import Any, Self
from uuid import uuid4

import pytest
from chainlit.session import WebsocketSession, ws_sessions_id
from engineio.async_socket import AsyncSocket
from engineio.packet import MESSAGE, Packet
from socketio import AsyncServer

from storygen.chat import windows
from storygen.chat.doors import LocalDoor, Visitor
from storygen.chat.sockets import Sockets
from storygen.errors import DatabaseError
from tests.chat.conftest import Browser

ADA = Visitor("1", "Ada", sign_in="x")
AWAY = "The story database does not answer. Try again."


class Doorman(LocalDoor):
    """Lets in whoever is not gone, as long as the database is there."""

    def __init__(self) -> None:
        self.gone: set[Visitor] = set()
        self.is_away = False

    async def present(self, visitors: Collection[Visitor]) -> set[Visitor]:
        if self.is_away:
            raise DatabaseError(AWAY)
        return set(visitors) - self.gone


class Line:
    """A socket that the gate has let in, of a server as the page has it."""

    def __init__(self, door: Doorman) -> None:
        self.sio, self.opened = AsyncServer(async_mode="asgi"), 0
        self.sio.on("connect", self._connect)
        Sockets(self.sio)
        windows.guard(self.sio, door)
        self.socket = AsyncSocket(self.sio.eio, "socket")
        self.sio.eio.sockets["socket"] = self.socket

    async def open(self) -> Self:
        """Begin as every socket does."""
        environ = {"asgi.scope": {"storygen.visitor": ADA}}
        await self.sio.eio.handlers["connect"]("socket", environ)
        return self

    async def _connect(self, sid: str, environ: dict[str, Any], auth: Any) -> bool:
        """Do what Chainlit does with a window."""
        self.opened += 1
        browser = Browser()
        WebsocketSession(
            id=str(uuid4()),
            socket_id=sid,
            emit=browser.emit,  # type: ignore[arg-type]  # as far as it is called
            emit_call=browser.emit,  # type: ignore[arg-type]  # as far as it is called
            user_env={},
            client_type="webapp",
        )
        return True

    async def enter(self) -> list[str]:
        """What a window is answered that asks to be let in."""
        await self.socket.receive(Packet(MESSAGE, "0{}"))
        return self.sent()

    def sent(self) -> list[str]:
        """The frames that wait to be sent, with an empty one where whoever sends them ends."""
        frames = [self.socket.queue.get_nowait() for _ in range(self.socket.queue.qsize())]
        return ["" if frame is None else frame.encode() for frame in frames]


async def test_a_window_is_its_visitors() -> None:
    line = await Line(Doorman()).open()
    (answer,) = await line.enter()
    assert answer.startswith('40{"sid":')
    assert windows.open_windows() == [ADA]


async def test_who_is_let_in_no_more_opens_no_window_and_keeps_no_socket() -> None:
    door = Doorman()
    line = await Line(door).open()
    door.gone.add(ADA)
    told = '44{"message":"You are not signed in any more: reload the page."}'
    assert await line.enter() == [told, "1", ""]
    assert line.socket.closed
    assert line.opened == 0
    assert not ws_sessions_id


async def test_while_the_database_is_away_a_window_is_not_refused_and_comes_again() -> None:
    door = Doorman()
    line = await Line(door).open()
    door.is_away = True
    assert await line.enter() == [""]
    assert line.socket.closed
    assert line.opened == 0
    assert line.sio.manager.sid_from_eio_sid("socket", "/") is None


async def test_a_window_too_many_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MOST_WINDOWS", 0)
    line = await Line(Doorman()).open()
    (told, *_) = await line.enter()
    assert "0 windows are open already: close some" in told


async def test_a_window_that_is_closed_takes_its_socket_with_it() -> None:
    """Though it reads nothing of that."""
    line = await Line(Doorman()).open()
    await line.enter()
    await windows.close(line.sio, {ADA}.__contains__)
    assert line.sent() == ['42["reload"]', "41", "1", ""]
    assert line.socket.closed


async def test_what_a_socket_brings_after_its_end_is_not_heard(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It was an error in the log, and a window without a socket in memory for ever."""
    line = await Line(Doorman()).open()
    await line.enter()
    await windows.close(line.sio, {ADA}.__contains__)
    line.sent()
    assert await line.enter() == []
    assert line.opened == 1
    assert line.sio.manager.sid_from_eio_sid("socket", "/") is None
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
