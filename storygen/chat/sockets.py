"""Sockets: windows that do not read what they are sent, and windows that are not there any more.

The socket server keeps whatever a window has not read, without end, and looks for dead peers only
now and then. Here both have bounds.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from chainlit.session import WebsocketSession
from socketio import AsyncServer

# Seconds. A window that vanished without a word is noticed within both and LOOK_EVERY; a browser
# that has to wait for a busy processor must not be taken for one, since that ends its passage.
PING_EVERY, PING_PATIENCE, LOOK_EVERY = 4, 6, 1
MOST_PACKETS = 400  # that wait for a window to read them: twenty seconds of a passage
MOST_CHARACTERS = 2_000_000  # of them, beside the first, which may be a whole story

AsyncSocket = Any  # of engineio, which python-socketio brings
Emit = Callable[[str, Any], Awaitable[None]]
logger = logging.getLogger(__name__)


class Sockets:
    """The sockets of all windows."""

    def __init__(self, sio: AsyncServer) -> None:
        self._sio = sio
        self._looking: asyncio.Task[None] | None = None
        sio.eio.ping_interval, sio.eio.ping_timeout = PING_EVERY, PING_PATIENCE

    def bounded(self, session: WebsocketSession, emit: Emit) -> Emit:
        """An emit that ends a window which leaves too much unread."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        socket = self._socket(session.socket_id)

        async def emit_if_read(event: str, data: Any) -> None:
            if socket is not None and not socket.closed and is_behind(socket):
                logger.warning("A window did not read what it was sent and was closed.")
                await drop(socket)
            else:
                await emit(event, data)

        return emit_if_read

    def _socket(self, sid: str) -> AsyncSocket | None:
        engine_sid = self._sio.manager.eio_sid_from_sid(sid, "/")
        return self._sio.eio.sockets.get(engine_sid)

    async def _look(self) -> None:
        """Find the dead while there is anybody."""
        while sockets := list(self._sio.eio.sockets.values()):
            for socket in sockets:
                if not socket.closed and not socket.closing:
                    await socket.check_ping_timeout()
            await asyncio.sleep(LOOK_EVERY)


def is_behind(socket: AsyncSocket) -> bool:
    """Whether more waits to be read than a window may leave."""
    if socket.queue.qsize() <= 1:
        return False
    packets = list(socket.queue._queue)
    characters = sum(len(packet.data or "") for packet in packets[1:] if packet is not None)
    return len(packets) > MOST_PACKETS or characters > MOST_CHARACTERS


async def drop(socket: AsyncSocket) -> None:
    """End a window at once, with all that it has not read."""
    await socket.close(wait=False, abort=True)
    while not socket.queue.empty():
        socket.queue.get_nowait()
        socket.queue.task_done()
    socket.queue.put_nowait(None)  # whoever sends from it may end
