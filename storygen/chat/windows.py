"""Open windows, and whose they are: each ends when who opened it is no longer let in."""

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Any

from chainlit.session import WebsocketSession, ws_sessions_sid
from socketio import AsyncServer
from socketio.exceptions import ConnectionRefusedError as Refusal

from storygen.chat.doors import Door, Visitor, visitor_of
from storygen.chat.sockets import hang_up, socket_of
from storygen.errors import StorygenError

EVERY = 2.0  # seconds from being disabled, or signed out by the command, to the end of a window
TEND_EVERY = 30  # rounds of these
MOST_WINDOWS = 100  # of one user
logger = logging.getLogger(__name__)


def guard(sio: AsyncServer, door: Door) -> None:
    """Note whose each window is as it opens, and refuse a user's window too many; call when all
    handlers are in their place.

    The gate has let in the socket, over which windows may come and go long after, so the door is
    asked again as each opens. Whoever is no longer let in loses theirs: at once where they sign out
    here, otherwise within EVERY. To look again at every event would have one overtake another, and
    Stop come before what it is to stop.
    """
    connect = sio.handlers["/"]["connect"]

    async def on_connect(sid: str, environ: dict[str, Any], auth: Any) -> Any:
        visitor = visitor_of(environ["asgi.scope"])
        if visitor is not None:
            if not await door.present({visitor}):
                raise Refusal("You are not signed in any more: reload the page.")
            if _open_of(sio, visitor.owner) >= MOST_WINDOWS:
                raise Refusal(
                    f"{MOST_WINDOWS} windows are open already: close some, then reload this one."
                )
        answer = await connect(sid, environ, auth)
        vars(WebsocketSession.require(sid))["storygen_visitor"] = visitor
        return answer

    sio.on("connect", on_connect)
    # Over polling, a request could bring events of a window that another visitor has opened.
    sio.eio.transports = ["websocket"]


async def close(sio: AsyncServer, gone: Callable[[Visitor], bool]) -> None:
    """Close the windows of those who are gone."""
    for session in list(ws_sessions_sid.values()):
        visitor = _visitor(session)
        if visitor is not None and gone(visitor):
            await _close(sio, session)


async def watch(sio: AsyncServer, door: Door) -> None:
    """Close the windows of those who were let in once and would not be again, for ever."""
    rounds = 0
    while True:
        await asyncio.sleep(EVERY)
        rounds += 1
        try:
            visitors = {v for s in list(ws_sessions_sid.values()) if (v := _visitor(s))}
            gone = visitors - await door.present(visitors) if visitors else set()
            if gone:
                await close(sio, gone.__contains__)
            if rounds % TEND_EVERY == 0:
                await door.tend()
        except StorygenError as error:  # the database is away: nobody is sent out for that
            logger.warning("%s", error)
        except Exception:  # of one window, perhaps; the others are to be looked after all the same
            logger.exception("Windows could not be looked after.")


def open_windows() -> Collection[Visitor]:
    """Who has a window open, once for each window."""
    return [v for s in list(ws_sessions_sid.values()) if (v := _visitor(s))]


def _visitor(session: WebsocketSession) -> Visitor | None:
    visitor: Visitor | None = vars(session).get("storygen_visitor")
    return visitor


def _open_of(sio: AsyncServer, owner: str) -> int:
    """How many windows of a user are connected: Chainlit keeps those of closed ones for a while."""
    return sum(
        visitor.owner == owner and sio.manager.is_connected(session.socket_id, "/")
        for session in list(ws_sessions_sid.values())
        if (visitor := _visitor(session))
    )


async def _close(sio: AsyncServer, session: WebsocketSession) -> None:
    """The page loads itself anew, and meets whatever it meets then; its socket, which the gate
    let in when it still did, ends with it."""
    socket = socket_of(sio, session)
    await sio.emit("reload", to=session.socket_id)
    await sio.disconnect(session.socket_id)
    await hang_up(socket)
