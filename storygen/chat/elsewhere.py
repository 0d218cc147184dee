"""What other servers of the same stories tell of them, and what is done about it here."""

import asyncio
import logging

from storygen.chat.shared_lock import OVER, STOP
from storygen.chat.state import Chat, Studio
from storygen.errors import DatabaseError, StoryError
from storygen.story.claims import Claims

KEEP_EVERY = 5.0  # seconds; a connection that was lost hears nothing until it is made anew
logger = logging.getLogger(__name__)


async def attend(studio: Studio) -> None:
    """Do what other servers tell, for ever. Where there can be none, there is nothing to do."""
    if not studio.store.claims.is_shared:
        return
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with asyncio.TaskGroup() as group:
        group.create_task(_listen(studio.store.claims, heard))
        group.create_task(_take_in(studio, heard))


async def _listen(claims: Claims, heard: asyncio.Queue[str]) -> None:
    is_listening = False
    while True:
        try:
            if is_listening:
                await claims.keep()
            else:
                await claims.listen(heard.put_nowait)
                is_listening = True
        except (DatabaseError, StoryError) as error:
            logger.warning("%s", error)
        await asyncio.sleep(KEEP_EVERY)


async def _take_in(studio: Studio, heard: asyncio.Queue[str]) -> None:
    while True:
        word, _, story_id = (await heard.get()).partition(" ")
        if word == STOP:
            for writing in studio.works_on(story_id):
                writing.stop()
        elif word == OVER:
            for chat in studio.windows():
                if chat.is_stored and chat.story_id == story_id:
                    await _show_change(studio, chat)


async def _show_change(studio: Studio, chat: Chat) -> None:
    """Tell a window where its story stands, now that a turn elsewhere is over."""
    try:
        story = await studio.store.story(chat.owner, chat.story_id)
        can_redo = await studio.store.can_redo(chat.owner, chat.story_id)
    except (DatabaseError, StoryError):  # it is away, or the story is: the next turn here says so
        return
    here = {"story": chat.story_id, "head": story.head_id, "can_redo": can_redo}
    await chat.screen.tell(changed=here)
