"""The floor: one turn at a time in each story, with every error said and the window kept true."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from storygen import logs
from storygen.chat.buttons import buttons
from storygen.chat.state import Chat, Studio, Writing
from storygen.errors import StoryError, StorygenError
from storygen.metrics import error_told
from storygen.story.tree import StoryTree

logger = logging.getLogger(__name__)


class Floor:
    """One window that has something to do in its story. Use each object once; whether Stop was
    pressed is counted from when it is made."""

    def __init__(self, studio: Studio, chat: Chat) -> None:
        self.studio, self.store, self.engine = studio, studio.store, studio.engine
        self.chat, self.screen = chat, chat.screen
        self.writing: Writing = studio.writing(chat)
        self._stops_then = self._stops()

    @property
    def is_called_off(self) -> bool:
        """Whether nothing more should be written: Stop was pressed, the window was closed, or
        somebody waits to go on elsewhere."""
        return self.writing.waiting > 0 or self._stops() != self._stops_then

    def _stops(self) -> int:
        return self.writing.stops + self.chat.stops

    async def tree(self) -> StoryTree:
        """The story as it is stored."""
        return await self.store.tree(self.chat.owner, self.chat.story_id)

    async def tree_at(self, head_id: str) -> StoryTree:
        """The tree, if the story still ends where the writer saw it end."""
        tree = await self.tree()
        if (tree.head_id or "") != head_id:
            raise StoryError(
                "This button belongs to an earlier end of the story; use those under its last "
                "passage."
            )
        return tree

    async def press(self, work: Callable[[], Awaitable[None]]) -> None:
        """A button waits for nothing: the end of the story it was pressed for would be gone."""
        if self.writing.readers:
            await self.screen.toast("A passage is being written here. Press Stop first.")
        else:
            await self.run(work)

    async def run(self, work: Callable[[], Awaitable[None]], *, interrupts: bool = True) -> None:
        """Have the word, do the work, say what went wrong, show what is stored. Never raises."""
        async with self._having_the_word(interrupts):
            await self.screen.emitter.task_start()
            await self.screen.clear()
            await self._told(work)
            await self._told(self._settle)
        await self.screen.emitter.task_end()

    @asynccontextmanager
    async def _having_the_word(self, interrupts: bool) -> AsyncIterator[None]:
        """The story to oneself, once whatever is being written there has ended."""
        task = asyncio.current_task()
        assert task is not None
        self.studio.turns.add(task)
        self.chat.turns += 1
        try:
            if interrupts:
                self.writing.waiting += 1
                self.writing.interrupt()
            try:
                await self.writing.lock.acquire()
            finally:
                self.writing.waiting -= interrupts
            self.writing.chat = self.chat
            try:
                yield
            finally:
                self.writing.chat = None
                self.writing.lock.release()
        finally:
            self.chat.turns -= 1
            self.studio.turns.discard(task)

    async def _told(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work; whatever goes wrong is said on the page, never with a traceback."""
        try:
            await work()
        except StorygenError as error:
            error_told(error)
            await self.screen.notice(str(error), is_error=True)
        except Exception as error:
            error_told(error)
            number = logs.number()
            logger.exception("Error in story %s", self.chat.story_id)
            await self.screen.notice(
                f"Something went wrong that should not (number {number} in the log). "
                "Nothing that was stored is lost.",
                is_error=True,
            )

    async def _settle(self) -> None:
        """Show the story as it is stored, with the buttons that make sense at its end."""
        if not self.chat.is_stored:
            return
        tree = await self.tree()
        branch = tree.branch()
        await self.screen.show(branch)
        can_redo = await self.store.can_redo(self.chat.owner, self.chat.story_id)
        offered = buttons(branch, can_redo=can_redo)
        ends_with_model = bool(branch) and branch[-1].role == "model"
        await self.screen.offer(offered, branch[-1].id if ends_with_model else None)
        here = {"story": self.chat.story_id, "head": tree.head_id, "can_redo": can_redo}
        for chat in self.studio.chats_of(self.chat):
            await chat.screen.tell(changed=here)
