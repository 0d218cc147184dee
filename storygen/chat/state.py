"""Who is writing what: one Chat for each window, one Writing for each story being written."""

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet, WeakValueDictionary

from chainlit.session import WebsocketSession

from storygen.catalogue import ModelInfo, open_to
from storygen.chat.controls import Choices, first_choices
from storygen.chat.screen import Screen
from storygen.chat.shared_lock import Lock, SharedLock, stop_elsewhere
from storygen.chat.shares import Aside, Shares
from storygen.engine.interface import Engine
from storygen.errors import ModelNotFoundError
from storygen.story.steering import Steering, from_json, steering_of
from storygen.story.store import StoryStore

STOP_WITHIN = 5  # seconds for all passages to be stored when the server ends
TELLING = 4  # stories at a time: of many that begin at once, all would be the last to be stored


@dataclass(eq=False)
class Chat:
    """One window on one story. Only ids and values; texts are in the store."""

    session: WebsocketSession
    owner: str
    choices: Choices
    screen: Screen
    is_stored: bool = False  # a story exists from its first message on
    opened: asyncio.Event = field(default_factory=asyncio.Event)  # once it is known which
    turns: int = 0  # running and waiting
    stops: int = 0  # how often the window was closed
    events: int = 0  # of the window that are being worked on
    is_flooding: bool = False  # whether there were too many of them
    is_stopping: bool = False  # whether other servers are being told to stop
    told_words: int = 0  # how many forgotten words the writer was told of
    told_setting: str = ""  # the last complaint about a setting
    shown_preset: str = ""  # what the sidebar was shown with
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def story_id(self) -> str:
        """Chainlit's thread and our story have the same id."""
        return self.session.thread_id

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work beside the request that asked for it."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


class Writing:
    """One story at work, shared by all windows that show it: one turn at a time, wherever else the
    story is open.

    Whoever sends something has the word: it interrupts what a model is writing there, and waits
    for the lock only until that is stored.
    """

    def __init__(self) -> None:
        self.lock: Lock = asyncio.Lock()
        self.chat: Chat | None = None  # whose turn it is
        self.waiting = 0  # turns that will follow it
        self.stops = 0  # how often Stop was pressed
        self.readers: set[asyncio.Task[None]] = set()  # they take in what the engine writes

    def is_wanted(self) -> bool:
        """Whether somebody waits for the word, and would not have this turn write on."""
        return self.waiting > 0

    def stop(self) -> None:
        """The writer wants nothing written now, neither what runs nor what is about to start."""
        self.stops += 1
        self.interrupt()

    def interrupt(self) -> None:
        """End the passages that are being written, if any; what there is of them stays."""
        for reader in self.readers:
            reader.cancel()


class Studio:
    """What every chat shares: the engine, the stories, and who writes where."""

    store: StoryStore  # opened when the server starts
    failures = 0  # passages that the engine could not write, though it was not busy
    is_ending = False  # whether it was told to end: nothing new is begun

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.turns: set[asyncio.Task[Any]] = set()
        self._releases: set[asyncio.Task[Any]] = set()  # of stories that other servers may have now
        # First come, first served, but for whose other window is being told something already.
        self.telling = Shares(1, together=TELLING)
        self.aside = Aside()  # for turns that are long work
        self._writings: WeakValueDictionary[tuple[str, str], Writing] = WeakValueDictionary()
        self._chats: WeakSet[Chat] = WeakSet()

    def chat(self, session: WebsocketSession) -> Chat:
        """The chat of a session, made when first asked for. The session carries it, so that both
        go together."""
        chat: Chat | None = vars(session).get("storygen_chat")
        if chat is None:
            owner = session.user.identifier if session.user else ""
            choices = first_choices(self.models(owner))
            chat = Chat(session, owner, choices, Screen(session))
            vars(session)["storygen_chat"] = chat
            self._chats.add(chat)
        if not chat.choices.model:  # when the window was opened, no model was there
            chat.choices = first_choices(self.models(chat.owner))
        return chat

    def models(self, owner: str) -> list[ModelInfo]:
        """What an owner of stories may write with."""
        return open_to(owner, self.engine.models())

    def model(self, owner: str, name: str) -> ModelInfo:
        """The model of this name; raises ModelNotFoundError in a writer's words."""
        model = next((info for info in self.models(owner) if info.name == name), None)
        if model is None:
            raise ModelNotFoundError(self.no_model(name))
        return model

    def no_model(self, name: str = "") -> str:
        """Why nothing is written: the model of this name is gone, or, without a name, none is
        here."""
        if trouble := self.engine.health().trouble:
            return trouble
        if not name:
            return (
                "There is no model to write with yet. Put one into the weights folder, or train "
                "one with python -m storygen.train."
            )
        return f"The model {name[:80]!r} is gone. Choose another in the settings."

    def windows(self) -> list[Chat]:
        """All that are open, or were a moment ago."""
        return list(self._chats)

    def chats_of(self, chat: Chat) -> list[Chat]:
        """All windows on a chat's story, that one first."""
        place = (chat.owner, chat.story_id)
        others = [c for c in self._chats if c is not chat and (c.owner, c.story_id) == place]
        return [chat, *others]

    async def steer(self, owner: str, story_id: str, changes: Mapping[str, Any]) -> Steering:
        """Change some of what the model is told beside a story, and leave the rest, whoever else
        changes it at this moment. Raises StoryError for what cannot be kept."""

        def change(settings: dict[str, Any]) -> dict[str, Any]:
            told = from_json(steering_of(settings).as_json() | dict(changes))
            return settings | {"steering": told.as_json()}

        story = await self.store.change_settings(owner, story_id, change)
        return steering_of(story.settings)

    def writing(self, chat: Chat) -> Writing:
        """The work on the chat's story."""
        place = (chat.owner, chat.story_id)
        writing = self._writings.get(place)
        if writing is None:
            writing = self._writings[place] = Writing()
            if self.store.claims.is_shared:
                writing.lock = SharedLock(
                    self.store.claims, chat.story_id, writing.is_wanted, self._releases
                )
        return writing

    def stop(self, chat: Chat) -> None:
        """Stop was pressed: nothing more is written in the chat's story now, wherever that is."""
        writing = self.writing(chat)
        writing.stop()
        if writing.chat is None and self.store.claims.is_shared and not chat.is_stopping:
            chat.is_stopping = True
            chat.start(self._stop_elsewhere(chat))

    async def _stop_elsewhere(self, chat: Chat) -> None:
        try:
            await stop_elsewhere(self.store.claims, chat.story_id)
        finally:
            chat.is_stopping = False

    def works_on(self, story_id: str) -> list[Writing]:
        """The work on a story, if there is any here."""
        return [w for (_, of), w in list(self._writings.items()) if of == story_id]

    def leave(self, chat: Chat) -> None:
        """A window was closed: what was being written for it ends, and is kept."""
        chat.stops += 1
        writing = self.writing(chat)
        if writing.chat is chat:
            writing.interrupt()

    async def stop_all(self) -> None:
        """Stop every passage and wait until what there is of it is stored."""
        for writing in list(self._writings.values()):
            writing.stop()
        for tasks in (self.turns, self._releases):
            if tasks:
                await asyncio.wait(tasks, timeout=STOP_WITHIN)
