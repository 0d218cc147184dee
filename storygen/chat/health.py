"""Whether the page can write, found out before anybody asks."""

import asyncio
import logging

from storygen import logs, metrics
from storygen.chat.state import Studio
from storygen.errors import BusyError, StorygenError
from storygen.machines import FIRST_WORDS, standstill
from storygen.params import SamplingParams

TRY_AGAIN = 15.0  # seconds after which a model that failed is tried again
DATABASE_SECONDS = 2.0  # it may take to answer
TOKEN_SECONDS = 2.0  # whoever asks waits for a token after a passage failed
ENDING = "storygen is being restarted"

logger = logging.getLogger(__name__)


class Readiness:
    """Whether passages can be written, found out by writing one."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._reason: str | None = "no model has written anything since the start"
        self._proving: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()  # since a passage failed
        self._failures = 0  # of writers' passages, when it was last tried
        self._asked: asyncio.Task[str | None] | None = None  # the database

    @property
    def is_alive(self) -> bool:
        """Whether the engine runs; one that was stuck is started anew by itself."""
        return self._studio.engine.health().is_alive

    def prove(self) -> None:
        """Have the first model write a token, in the background, until it has."""
        self._failures = self._studio.failures
        self._tried.clear()
        self._proving = asyncio.create_task(self._prove())

    async def reason(self) -> str | None:
        """Why nothing can be written now; None when it can. Where a writer's passage has failed
        it is tried anew, before anything is said."""
        if self._proving and self._proving.done() and self._failures != self._studio.failures:
            self.prove()
        reason = self._stopped() or await self._no_token()
        reason = reason or await self._database()
        metrics.READY.set(reason is None)
        metrics.WINDOWS.set(len(self._studio.windows()))  # open, or may come back
        return reason

    def _stopped(self) -> str | None:
        """Why no token can be written, as it is known without trying."""
        return ENDING if self._studio.is_ending else standstill(self._studio.engine)

    async def _no_token(self) -> str | None:
        """Why no token can be written, as far as it is known."""
        if self._reason is None and not self._tried.is_set():
            try:
                await asyncio.wait_for(self._tried.wait(), TOKEN_SECONDS)
            except TimeoutError:
                return "a passage failed, and no token has been written since"
        return self._reason

    async def _prove(self) -> None:
        while True:
            self._reason = await self._failure()
            self._tried.set()
            if self._reason is None:
                return
            await asyncio.sleep(TRY_AGAIN)

    async def _failure(self) -> str | None:
        """Why the first model cannot write; None when it just did."""
        models = self._studio.engine.models()
        if not models:
            return "there is no model"
        params = SamplingParams(max_new_tokens=1, seed=0)
        stream = self._studio.engine.stream(models[0].name, FIRST_WORDS, params)
        try:
            reasons = [segment.finish_reason async for segment in stream]
        except BusyError:  # it writes for others: as it was
            return self._reason
        except Exception as error:  # whatever it is, or nobody would try again
            logger.warning("The first model cannot write.", exc_info=error)
            return f"the first model cannot write (number {logs.number()} in the log)"
        return None if reasons[-1:] != ["error"] else "the first model cannot write"

    async def _database(self) -> str | None:
        """Why stories cannot be read. Whoever can reach the page may ask: one question at a time
        is put, and answers them all."""
        if self._asked is None or self._asked.done():
            self._asked = asyncio.create_task(self._ask_database())
        return await asyncio.shield(self._asked)

    async def _ask_database(self) -> str | None:
        try:
            async with asyncio.timeout(DATABASE_SECONDS):
                await self._studio.store.stories("", limit=1)  # nobody's
        except (StorygenError, TimeoutError) as error:
            logger.warning("The database does not answer.", exc_info=error)
            return f"the database does not answer (number {logs.number()} in the log)"
        return None
