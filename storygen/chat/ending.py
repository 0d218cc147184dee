"""The end of the server: what is being written is stored, the windows are told, then sockets close.

By itself uvicorn would close the sockets first, then wait for whoever sends or reads nothing, and
Chainlit end with 0 whatever had happened.
"""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn

from storygen.chat.state import Studio
from storygen.connections import Connection
from storygen.errors import StorygenError
from storygen.story import leash

SECONDS = 9.0  # service managers kill after ten
TELLING = 1.0  # for the windows to be told
LEAVING = 0.2  # for what they are told to leave
ANSWERING = 2  # for requests to be answered; what takes longer is ended
RESTARTED, SAVED = "storygen is being restarted.", "Your story is saved."

Handler = Callable[[int, FrameType | None], object]
logger = logging.getLogger(__name__)


class Ending:
    """SIGTERM or SIGINT ends the server in order; a second one ends it at once."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._before: dict[int, Handler] = {}
        self._loop: asyncio.AbstractEventLoop
        self._draining: asyncio.Task[None] | None = None

    def listen(self) -> None:
        """Take the signals over from uvicorn, which has its own handlers once it has begun."""
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            before = signal.getsignal(number)
            if callable(before):
                self._before[number] = before
                signal.signal(number, self._asked)
                _bound(getattr(before, "__self__", None))

    def _asked(self, number: int, frame: FrameType | None) -> None:
        """Runs in the middle of anything, even where the event loop is held up."""
        if self._studio.is_ending:
            os._exit(128 + number)
        self._studio.is_ending = True
        leash.stop()
        limit = threading.Timer(SECONDS, _give_up)
        limit.daemon = True
        limit.start()
        self._loop.call_soon_threadsafe(self._begin, number)

    def _begin(self, number: int) -> None:
        self._draining = asyncio.create_task(self._drain(number))

    async def _drain(self, number: int) -> None:
        logger.info("Ending: passages are stored, then the sockets close.")
        await self._studio.stop_all()
        if self._studio.turns:
            logger.error("Not every passage could be stored in time.")
            os._exit(1)
        sentence = SAVED
        try:
            await self._studio.store.growing.pay()
        except StorygenError as error:
            sentence = str(error)
            logger.error("%s", sentence)
        said = f"{RESTARTED} {sentence}"
        told = [asyncio.create_task(chat.screen.toast(said)) for chat in self._studio.windows()]
        if told:
            await asyncio.wait(told, timeout=TELLING)
            await asyncio.sleep(LEAVING)
        self._before[number](number, None)


def _bound(server: object) -> None:
    """Have uvicorn wait no longer for a file that drips in or a book that nobody reads, at the end
    as before. Chainlit, which makes the server, has no setting for it."""
    if isinstance(server, uvicorn.Server):
        server.config.timeout_graceful_shutdown = ANSWERING
        server.config.http_protocol_class = Connection


def _give_up() -> None:
    logger.error("The end took too long.")
    os._exit(1)
