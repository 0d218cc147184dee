"""Sockets: windows that do not read what they are sent, windows that are not there any more, and
windows that send what no page does.

The socket server keeps whatever a window has not read, without end, and looks for dead peers only
now and then. Here both have bounds. It also takes a window's word for the events by which it tells
us itself that a window comes and goes, calls what it cannot read an error of the server's, and
parses whatever it is sent, however much that is.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from chainlit.session import WebsocketSession
from socketio import AsyncServer
from socketio import packet as packets
from starlette.types import Receive, Scope, Send

from storygen.chat.budgets import Budgets, measured
from storygen.chat.doors import visitor_of
from storygen.errors import DatabaseError
from storygen.structure import is_plain

# Seconds. A window that vanished without a word is noticed within both and LOOK_EVERY; a browser
# that has to wait for a busy processor must not be taken for one, since that ends its passage.
PING_EVERY, PING_PATIENCE, LOOK_EVERY = 4, 6, 1
FRAME_KINDS, MESSAGE = 7, "4"  # of Engine.IO
MOST_PACKETS = 400  # that wait for a window to read them: twenty seconds of a passage
MOST_CHARACTERS = 2_000_000  # of them, beside the first, which may be a whole story
MOST_STRUCTURE = 5000  # characters of a packet that are not in texts; a page sends some hundred
MOST_SOCKETS = 200  # of one user: windows, and those that are about to come or gone
LONGEST_SIGN = 100  # of a frame that is no packet: a ping is one character
# Who asks stands in what the server says with these; from a window they would be believed.
SERVERS_OWN = {"connect", "disconnect"}
BARE = {"connection_successful", "clear_session"}  # Chainlit's handlers take nothing with them

AsyncSocket = Any  # of engineio, which python-socketio brings
Emit = Callable[[str, Any], Awaitable[None]]
logger = logging.getLogger(__name__)


class Sockets:
    """The sockets of all windows."""

    def __init__(self, sio: AsyncServer) -> None:
        self._sio = sio
        self._looking: asyncio.Task[None] | None = None
        sio.eio.ping_interval, sio.eio.ping_timeout = PING_EVERY, PING_PATIENCE
        sio.packet_class = Said
        sio.eio.on("connect", _of_known_kinds(sio, sio.eio.handlers["connect"]))
        sio.eio.on("message", _readable(sio, sio.eio.handlers["message"]))
        sio.eio.handle_request = _framed(sio.eio.handle_request, Budgets())

    def bounded(self, session: WebsocketSession, emit: Emit) -> Emit:
        """An emit that ends a window which leaves too much unread."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        socket = socket_of(self._sio, session)

        async def emit_if_read(event: str, data: Any) -> None:
            if socket is not None and not socket.closed and is_behind(socket):
                logger.warning("A window did not read what it was sent and was closed.")
                await drop(socket)
            else:
                await emit(event, data)

        return emit_if_read

    async def _look(self) -> None:
        """Find the dead while there is anybody."""
        while sockets := list(self._sio.eio.sockets.values()):
            for socket in sockets:
                if not socket.closed and not socket.closing:
                    await socket.check_ping_timeout()
            await asyncio.sleep(LOOK_EVERY)


class UnreadableError(Exception):
    """A window sent what no page does."""


class Said(packets.Packet):  # type: ignore[misc]  # socketio has no types
    """What a window says: that it comes and goes, an event that is a window's to tell, with one
    value at most, or that it got something. Raises UnreadableError for all else."""

    data: Any

    def decode(self, encoded_packet: Any) -> Any:
        """Take the packet in."""
        if not is_plain(encoded_packet, MOST_STRUCTURE):
            raise UnreadableError
        try:
            attachments = super().decode(encoded_packet)
        except (ValueError, RecursionError) as error:
            raise UnreadableError from error
        if self.packet_type == packets.EVENT:
            self.data = _event(self.data)
        elif self.packet_type == packets.ACK and not isinstance(self.data, list):
            raise UnreadableError
        elif self.packet_type not in {packets.CONNECT, packets.DISCONNECT, packets.ACK}:
            raise UnreadableError
        return attachments


def _event(data: Any) -> list[Any]:
    """The name of an event, and what comes with it."""
    match data:
        case [str(name), *_] if name in BARE:
            return [name]
        case [str(name)] | [str(name), _] if name not in SERVERS_OWN:
            return list(data)
    raise UnreadableError


def _readable(
    sio: AsyncServer, handle: Callable[[str, Any], Awaitable[None]]
) -> Callable[..., Awaitable[None]]:
    """A handler of messages that leaves aside what cannot be read, and who comes a second time;
    who comes and is refused has no socket any more to try it over."""

    def is_in(engine_sid: str) -> bool:
        return sio.manager.sid_from_eio_sid(engine_sid, "/") is not None

    async def handle_readable(engine_sid: str, data: Any) -> None:
        try:
            if not data or not isinstance(data, str):
                raise UnreadableError
            comes = data[0] == str(packets.CONNECT)
            if comes and is_in(engine_sid):
                raise UnreadableError
            await handle(engine_sid, data)
            if comes and not is_in(engine_sid):
                await hang_up(sio.eio.sockets.get(engine_sid))
        except UnreadableError:
            logger.info("A window sent what no page does; it was left aside.")
        except DatabaseError as error:  # the page comes again, and is let in when it is back
            logger.warning("A window could not be opened: %s", error)
            if socket := sio.eio.sockets.get(engine_sid):
                await drop(socket)
            if half_open := sio.manager.sid_from_eio_sid(engine_sid, "/"):
                await sio.manager.disconnect(half_open, "/")

    return handle_readable


def _of_known_kinds(
    sio: AsyncServer, handle: Callable[[str, Any], Awaitable[Any]]
) -> Callable[..., Awaitable[Any]]:
    """A handler of new sockets that leave aside frames of kinds that the protocol has not, which
    the socket server would call its own errors, and that hear nothing once they are closed."""

    async def handle_connect(engine_sid: str, environ: Any) -> Any:
        socket = sio.eio.sockets[engine_sid]
        receive = socket.receive

        async def receive_known(frame: Any) -> None:
            if socket.closed:
                return
            if frame.packet_type < FRAME_KINDS:
                await receive(frame)
            else:
                logger.info("A window sent a frame of a kind that there is not; it was left aside.")

        socket.receive = receive_known
        return await handle(engine_sid, environ)

    return handle_connect


def _framed(handle: Callable[..., Awaitable[Any]], budgets: Budgets) -> Callable[..., Any]:
    """A handler of sockets that is slow to hear a user who sends much, lets a socket end whose
    frames are not even of the protocol's kinds, or more than its user may send, and refuses one
    that is too many of its user's."""
    open_of = Counter[str]()

    async def handle_framed(scope: Scope, receive: Receive, send: Send) -> Any:
        visitor = visitor_of(scope)
        owner = visitor.owner if visitor else ""
        if scope["type"] == "websocket" and open_of[owner] >= MOST_SOCKETS:
            logger.warning("A user has too many sockets open; one more was refused.")
            await receive()
            return await send({"type": "websocket.close", "code": 1013})

        def accepts(frame: str | bytes) -> float | None:
            wait = budgets.of(owner).takes(len(frame))
            if wait is None:
                logger.warning("A user's windows sent more than all of them may; one is closed.")
            elif len(frame) > LONGEST_SIGN and not is_packet(frame):
                logger.info("A window sent what is no frame, and is closed.")
                return None
            return wait

        open_of[owner] += 1
        try:
            return await handle(scope, measured(receive, accepts), send)
        except (ValueError, IndexError, RecursionError):
            logger.info("A window sent what is no frame, and is closed.")
        finally:
            open_of[owner] -= 1
            if not open_of[owner]:
                del open_of[owner]

    return handle_framed


def is_packet(frame: str | bytes) -> bool:
    """Whether a frame carries a packet; all else, and first of all lists, the socket server would
    parse before anybody sees it."""
    return isinstance(frame, str) and frame[0] == MESSAGE and frame[1].isdecimal()


def is_behind(socket: AsyncSocket) -> bool:
    """Whether more waits to be read than a window may leave."""
    if socket.queue.qsize() <= 1:
        return False
    packets = list(socket.queue._queue)
    characters = sum(len(packet.data or "") for packet in packets[1:] if packet is not None)
    return len(packets) > MOST_PACKETS or characters > MOST_CHARACTERS


def socket_of(sio: AsyncServer, session: WebsocketSession) -> AsyncSocket | None:
    """The socket under a window; None where the window has gone from it."""
    return sio.eio.sockets.get(sio.manager.eio_sid_from_sid(session.socket_id, "/"))


async def hang_up(socket: AsyncSocket | None) -> None:
    """End a socket once it has sent what waits; a window alone leaves it to bring another."""
    if socket is not None and not socket.closed:
        await socket.close(wait=False)
        socket.queue.put_nowait(None)  # whoever sends from it ends there


async def drop(socket: AsyncSocket) -> None:
    """End a window at once, with all that it has not read."""
    await socket.close(wait=False, abort=True)
    while not socket.queue.empty():
        socket.queue.get_nowait()
        socket.queue.task_done()
    socket.queue.put_nowait(None)  # whoever sends from it may end
