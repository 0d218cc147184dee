"""Open windows, and whose they are: each ends when who opened it is no longer let in."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from chainlit.session import WebsocketSession, ws_sessions_sid
from socketio import AsyncServer

from storygen.chat.doors import Door, Visitor, visitor_of
from storygen.errors import StorygenError

EVERY = 2.0  # seconds from being disabled, or signed out by the command, to the end of a window
TEND_EVERY = 30  # rounds of these
logger = logging.getLogger(__name__)


def guard(sio: AsyncServer, door: Door) -> None:
    """Have every event of a window asked for by someone who is let in; call when all handlers are
    in their place."""
    handlers = sio.handlers["/"]
    connect = handlers["connect"]

    async def on_connect(sid: str, environ: dict[str, Any], auth: Any) -> Any:
        answer = await connect(sid, environ, auth)
        session = WebsocketSession.require(sid)
        vars(session)["storygen_visitor"] = visitor_of(environ["asgi.scope"])
        return answer

    def checked(handler: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def on_event(sid: str, *values: Any) -> Any:
            session = WebsocketSession.get(sid)
            visitor = session and _visitor(session)
            if session and visitor and not await _is_present(door, visitor):
                return await _close(sio, session)
            return await handler(sid, *values)

        return on_event

    for event in set(handlers) - {"connect", "disconnect"}:
        sio.on(event, checked(handlers[event]))
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


async def _is_present(door: Door, visitor: Visitor) -> bool:
    try:
        return visitor in await door.present({visitor})
    except StorygenError:  # as above; what was asked for meets the same database
        return True


async def _close(sio: AsyncServer, session: WebsocketSession) -> None:
    """The page loads itself anew, and meets whatever it meets then."""
    await sio.emit("reload", to=session.socket_id)
    await sio.disconnect(session.socket_id)
