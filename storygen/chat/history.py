"""Stories as Chainlit's threads, passages as its messages: a view of the store, kept nowhere else.

Chainlit writes messages by itself, after the fact and without waiting; those writes are ignored,
because the turn has stored the passage before it was shown.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from chainlit.data.base import BaseDataLayer
from chainlit.element import Element, ElementDict
from chainlit.step import StepDict
from chainlit.types import (
    Feedback,
    PageInfo,
    PaginatedResponse,
    Pagination,
    ThreadDict,
    ThreadFilter,
)
from chainlit.user import PersistedUser, User

from storygen.chat.doors import Visitor
from storygen.chat.screen import page_time, steps_of
from storygen.errors import NoStoryError
from storygen.story.store import StoryStore
from storygen.story.tree import Passage, Story

UNTITLED = "Untitled story"
MAX_TITLE = 200


def thread_of(story: Story, branch: Sequence[Passage] = ()) -> ThreadDict:
    """A story as Chainlit lists and opens it. The list goes by when it was last written in."""
    return {
        "id": story.id,
        "createdAt": page_time(story.updated_at),
        "name": story.title or UNTITLED,
        "userId": story.owner,
        "userIdentifier": story.owner,
        "tags": None,
        "metadata": {},
        "steps": steps_of(branch),
        "elements": [],
    }


class StoryHistory(BaseDataLayer):
    """Chainlit's data layer, for whoever asks at the moment; asking tells who that is.

    Chainlit's own ideas of who asks are never used: most of its calls have none.
    """

    def __init__(self, store: StoryStore, asking: Callable[[], Visitor | None]) -> None:
        self.store = store
        self.asking = asking

    @property
    def owner(self) -> str:
        """Who asks; nobody owns what nobody asked for."""
        visitor = self.asking()
        return visitor.owner if visitor else ""

    async def get_user(self, identifier: str) -> PersistedUser | None:
        """Whoever asks; of others nothing is told."""
        visitor = self.asking()
        if visitor is None or visitor.owner != identifier:
            return None
        return PersistedUser(
            id=identifier, identifier=identifier, display_name=visitor.name, createdAt=""
        )

    async def create_user(self, user: User) -> PersistedUser | None:
        """Nobody is added."""
        return await self.get_user(user.identifier)

    async def get_thread_author(self, thread_id: str) -> str:
        """The owner of a story, empty when whoever asks has none of this id."""
        try:
            return (await self.store.story(self.owner, thread_id)).owner
        except NoStoryError:
            return ""

    async def get_thread(self, thread_id: str) -> ThreadDict | None:
        """A story with its active branch."""
        try:
            story = await self.store.story(self.owner, thread_id)
            tree = await self.store.tree(self.owner, thread_id)
        except NoStoryError:
            return None
        return thread_of(story, tree.branch())

    async def list_threads(
        self, pagination: Pagination, filters: ThreadFilter
    ) -> PaginatedResponse[ThreadDict]:
        """A page of stories, last written first; the cursor is the time of the last one listed."""
        limit = min(max(pagination.first, 1), 100)
        before = position_of(pagination.cursor)
        stories = await self.store.stories(
            self.owner, search=filters.search or "", limit=limit + 1, before=before
        )
        listed = stories[:limit]
        cursor = cursor_of(listed[-1]) if listed else None
        page = PageInfo(hasNextPage=len(stories) > limit, startCursor=None, endCursor=cursor)
        return PaginatedResponse(pageInfo=page, data=[thread_of(story) for story in listed])

    async def update_thread(
        self,
        thread_id: str,
        name: str | None = None,
        user_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        tags: list[str] | None = None,
    ) -> None:
        """A new title. Chainlit also comes here, with a user, to name a thread after its first
        message or button, and with metadata when a window closes: neither is ours."""
        if name is not None and user_id is None:
            title = " ".join(name.split())[:MAX_TITLE]
            await self.store.rename(self.owner, thread_id, title)

    async def delete_thread(self, thread_id: str) -> None:
        """Take a story out of the list; the store can bring it back."""
        await self.store.delete_story(self.owner, thread_id)

    async def create_step(self, step_dict: StepDict) -> None:
        """Nothing: passages are stored by their turn."""

    async def update_step(self, step_dict: StepDict) -> None:
        """Nothing, as above."""

    async def delete_step(self, step_id: str) -> None:
        """Nothing: a passage that leaves the screen stays in the tree."""

    async def get_favorite_steps(self, user_id: str) -> list[StepDict]:
        """None: favourites are off."""
        return []

    async def upsert_feedback(self, feedback: Feedback) -> str:
        """Feedback is off; the route to here is closed."""
        return ""

    async def delete_feedback(self, feedback_id: str) -> bool:
        """As above."""
        return False

    async def create_element(self, element: Element) -> None:
        """Nothing: passages have no attachments."""

    async def get_element(self, thread_id: str, element_id: str) -> ElementDict | None:
        """None, as above."""
        return None

    async def delete_element(self, element_id: str, thread_id: str | None = None) -> None:
        """Nothing, as above."""

    async def build_debug_url(self) -> str:
        """None."""
        return ""

    async def close(self) -> None:
        """Nothing: whoever opened the store closes it."""


def cursor_of(story: Story) -> str:
    """Where a page of the list ends."""
    return f"{story.updated_at.isoformat()}/{story.id}"


def position_of(cursor: str | None) -> tuple[datetime, str] | None:
    """What cursor_of wrote; the beginning for what it did not write."""
    try:
        moment, _, story_id = (cursor or "").partition("/")
        return datetime.fromisoformat(moment), story_id
    except ValueError:
        return None
