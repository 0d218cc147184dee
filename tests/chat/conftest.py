"""A window without a browser: a real session, store and turn, and a screen made of the events."""

import resource
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from chainlit.session import WebsocketSession, ws_sessions_id, ws_sessions_sid
from chainlit.user import PersistedUser

from storygen.chat.doors import Visitor
from storygen.chat.history import StoryHistory
from storygen.chat.state import Chat, Studio
from storygen.chat.turn import Turn
from storygen.engine.fake import FakeEngine
from storygen.story.store import StoryStore

OWNER = "writer"


@dataclass
class Browser:
    """What a browser would show after the events it was sent."""

    messages: dict[str, dict[str, Any]] = field(default_factory=dict)
    actions: dict[str, dict[str, Any]] = field(default_factory=dict)
    toasts: list[str] = field(default_factory=list)
    settings: list[list[dict[str, Any]]] = field(default_factory=list)
    events: list[tuple[str, Any]] = field(default_factory=list)
    is_busy: bool = False

    async def emit(self, event: str, data: Any) -> None:
        """Do with an event what Chainlit's page does."""
        self.events.append((event, data))
        match event:
            case "new_message" | "update_message" | "stream_start":
                self.messages[data["id"]] = self.messages.get(data["id"], {}) | data
            case "stream_token":
                message = self.messages[data["id"]]
                before = "" if data["isSequence"] else message["output"]
                message["output"] = before + data["token"]
            case "delete_message":
                self.messages.pop(data["id"], None)
            case "resume_thread":
                self.messages = {step["id"]: step for step in data["steps"]}
            case "action":
                self.actions[data["id"]] = data
            case "remove_action":
                self.actions.pop(data["id"], None)
            case "toast":
                self.toasts.append(data["message"])
            case "chat_settings":
                self.settings.append(data)
            case "task_start" | "task_end":
                self.is_busy = event == "task_start"

    @property
    def outputs(self) -> list[str]:
        """The messages' texts, in their order."""
        return [message["output"] for message in self.messages.values()]

    @property
    def buttons(self) -> list[str]:
        """The names of the buttons there are."""
        return [action["name"] for action in self.actions.values()]


class Window:
    """One open page of one writer."""

    def __init__(self, studio: Studio, story_id: str | None = None) -> None:
        self.studio, self.browser = studio, Browser()
        self.session = WebsocketSession(
            id=str(uuid4()),
            socket_id=str(uuid4()),
            emit=self.browser.emit,  # type: ignore[arg-type]  # as far as it is called
            emit_call=self.browser.emit,  # type: ignore[arg-type]  # as far as it is called
            user_env={},
            client_type="webapp",
            user=PersistedUser(id=OWNER, identifier=OWNER, createdAt=""),
            thread_id=story_id,
        )

    @property
    def chat(self) -> Chat:
        return self.studio.chat(self.session)

    @property
    def turn(self) -> Turn:
        return Turn(self.studio, self.chat)

    async def type(self, text: str, message_id: str | None = None) -> str:
        """Send a message, which the page shows at once by itself; the id of the message."""
        message_id = message_id or str(uuid4())
        self.browser.messages[message_id] = {"id": message_id, "output": text}
        await self.turn.say(message_id, text)
        return message_id

    async def head(self) -> str:
        """The id of the story's last passage."""
        tree = await self.studio.store.tree(OWNER, self.chat.story_id)
        return tree.head_id or ""

    async def texts(self) -> list[str]:
        """The stored texts of the active branch."""
        tree = await self.studio.store.tree(OWNER, self.chat.story_id)
        return [passage.text for passage in tree.branch()]


def history_of(store: StoryStore) -> StoryHistory:
    """Chainlit's view of a store, while the one writer asks."""
    return StoryHistory(store, lambda: Visitor(OWNER, OWNER))


@pytest.fixture(autouse=True)
def _no_session_is_left() -> Iterator[None]:
    """Chainlit keeps them for the whole process."""
    yield
    ws_sessions_id.clear()
    ws_sessions_sid.clear()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[StoryStore]:
    """An empty store on disk."""
    store = await StoryStore.open(f"sqlite+aiosqlite:///{tmp_path / 'stories.db'}")
    yield store
    await store.close()


@pytest.fixture
async def studio_with(store: StoryStore) -> AsyncIterator[Callable[[FakeEngine], Studio]]:
    """Makes a studio with an engine of one's own."""
    started: list[Studio] = []

    def make(engine: FakeEngine) -> Studio:
        engine._is_running = True
        studio = Studio(engine)
        studio.store = store
        started.append(studio)
        return studio

    yield make
    for studio in started:
        await studio.stop_all()


@pytest.fixture
def studio(studio_with: Callable[[FakeEngine], Studio]) -> Studio:
    """A studio whose model writes one short sentence."""
    return studio_with(FakeEngine([" It", " was", " dark."]))


@pytest.fixture
def disk() -> Iterator[Callable[[int], None]]:
    """Sets how large a file may grow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def window(studio: Studio) -> Window:
    """A window on a story that is not begun."""
    return Window(studio)
