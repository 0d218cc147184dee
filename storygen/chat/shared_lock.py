"""A story's lock where several servers share the stories: one turn at a time, at whichever it is.

The lock is a claim on the story, which goes when its server does. Whoever wants the word asks the
server that has it to end its passage, as another window of the same server would.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from storygen.errors import StoryError
from storygen.story.claims import Claims

TRY_EVERY = 0.1  # seconds
STOP, OVER = "stop", "over"  # what servers tell each other of a story


class Lock(Protocol):
    """As much of asyncio's as a turn needs."""

    async def acquire(self) -> Any:
        """Wait until nobody else has it."""

    def release(self) -> None:
        """Let the next one have it."""


class SharedLock:
    """One story's lock, here and at all other servers of its database.

    It never raises: where the database does not answer, the turn meets that itself, and says so.
    """

    def __init__(
        self,
        claims: Claims,
        story_id: str,
        is_wanted: Callable[[], bool],
        tasks: set[asyncio.Task[Any]],
    ) -> None:
        self._claims, self._story_id, self._is_wanted = claims, story_id, is_wanted
        self._here = asyncio.Lock()
        self._tasks = tasks  # what a server that ends waits for

    async def acquire(self) -> bool:
        """Wait until no turn works on the story; whoever may interrupt one, does."""
        await self._here.acquire()
        try:
            while not await self._taken():
                if self._is_wanted():
                    await stop_elsewhere(self._claims, self._story_id)
                await asyncio.sleep(TRY_EVERY)
        except BaseException:
            self._here.release()
            raise
        return True

    def release(self) -> None:
        """Let go, soon; here the next turn waits for that, too."""
        task = asyncio.create_task(self._let_go())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _taken(self) -> bool:
        try:
            return await self._claims.take(self._story_id)
        except StoryError:  # the database does not answer, or is being restored
            return True

    async def _let_go(self) -> None:
        try:
            await self._claims.let_go(self._story_id)
            await self._claims.tell(f"{OVER} {self._story_id}")
        finally:
            self._here.release()


async def stop_elsewhere(claims: Claims, story_id: str) -> None:
    """Have nothing more written in a story at any other server."""
    await claims.tell(f"{STOP} {story_id}")
