"""What comes over the socket besides prose: settings, commands, buttons, windows that open."""

import html
import json
from collections.abc import Callable
from functools import partial
from itertools import count
from uuid import uuid4

import pytest
from chainlit import socket as chainlits
from chainlit.action import Action
from chainlit.config import config
from chainlit.session import ws_sessions_id
from chainlit.types import ThreadDict
from chainlit.user import PersistedUser
from engineio.async_socket import AsyncSocket
from socketio import AsyncServer

from storygen.chat import events
from storygen.chat.doors import Visitor
from storygen.chat.guards import Written
from storygen.chat.settings import apply_settings
from storygen.chat.state import Studio
from storygen.engine.fake import FakeEngine
from storygen.engine.interface import Health
from storygen.errors import DatabaseError, StoryError
from storygen.story.store import StoryStore
from storygen.story.tree import StoryTree
from tests.chat.conftest import OWNER, Window, history_of


async def test_settings_hold_at_once_and_are_remembered(window: Window) -> None:
    await window.type("Begin.")
    await apply_settings(window.studio, window.chat, {"temperature": 1.5})
    assert window.chat.choices.params.temperature == 1.5
    story = await window.studio.store.story(OWNER, window.chat.story_id)
    assert story.settings["temperature"] == 1.5
    assert window.browser.settings == []  # the sidebar shows it already


async def test_a_slider_leaves_its_preset_and_is_not_shown_again_while_it_moves(
    window: Window,
) -> None:
    await events.begin(window.studio, window.chat)
    form = {"preset": "balanced", **window.chat.choices.as_settings()}
    for temperature in (0.9, 1.0, 1.2):  # each time with all the rest of the form, as it is there
        await apply_settings(window.studio, window.chat, form | {"temperature": temperature})
    assert window.chat.choices.params.temperature == 1.2
    assert len(window.browser.settings) == 1
    await apply_settings(window.studio, window.chat, form | {"preset": "steady"})
    shown = {w["id"]: w["initial"] for tab in window.browser.settings[-1] for w in tab["inputs"]}
    assert (shown["preset"], shown["temperature"], shown["top_k"]) == ("steady", 0.6, 30)


async def test_settings_before_the_first_message_belong_to_the_story(window: Window) -> None:
    await apply_settings(window.studio, window.chat, {"top_k": 3})
    await window.type("Begin.")
    story = await window.studio.store.story(OWNER, window.chat.story_id)
    assert story.settings["top_k"] == 3


async def test_complaint_about_a_setting_is_made_once(window: Window) -> None:
    for _ in range(3):  # a slider sends all values with every step
        await apply_settings(window.studio, window.chat, {"top_k": "x", "min_p": "y"})
    assert len(window.browser.toasts) == 1
    assert "(and 1 more like this)" in window.browser.toasts[0]
    await apply_settings(window.studio, window.chat, {"top_k": 3})
    await apply_settings(window.studio, window.chat, {"top_k": "x"})
    assert len(window.browser.toasts) == 2


async def test_corrected_setting_is_shown_in_the_sidebar(window: Window) -> None:
    await apply_settings(window.studio, window.chat, {"temperature": 99})
    story_tab = window.browser.settings[-1][0]["inputs"]
    shown = next(widget for widget in story_tab if widget["id"] == "temperature")
    assert shown["initial"] == 2.0


async def test_typed_command_does_what_the_button_does(window: Window) -> None:
    await window.type("Begin.")
    typed = str(uuid4())
    window.browser.messages[typed] = {"id": typed, "output": ""}
    written = Written(typed, "", "continue")
    await events.type_command(window.turn, written)
    assert await window.texts() == ["Begin.", " It was dark.", " It was dark."]
    assert typed not in window.browser.messages
    await events.type_command(window.turn, Written(str(uuid4()), "", "undo"))
    assert await window.texts() == ["Begin.", " It was dark."]
    await events.type_command(window.turn, Written(str(uuid4()), "", "redo"))
    assert len(await window.texts()) == 3


async def test_words_typed_with_a_command_are_never_dropped(window: Window) -> None:
    await window.type("Begin.")
    await events.type_command(window.turn, Written(str(uuid4()), "Mine.", "continue"))
    assert (await window.texts())[2] == "Mine."
    typed = str(uuid4())
    window.browser.messages[typed] = {"id": typed, "output": "Precious."}
    with pytest.raises(StoryError, match="still on the page"):
        await events.type_command(window.turn, Written(typed, "Precious.", "undo"))
    assert typed in window.browser.messages


async def test_command_in_an_empty_story_says_so(window: Window) -> None:
    with pytest.raises(StoryError, match="story is empty"):
        await events.type_command(window.turn, Written(str(uuid4()), "", "retry"))


async def test_button_that_was_never_there_says_so(window: Window) -> None:
    await window.type("Begin.")
    for head in (7, None, "x", ["y"]):
        action = Action(name="undo", payload={"head": head})
        await events.press(window.studio, window.chat, action)
    assert window.browser.toasts == ["This button could not be read; reload the page."] * 4
    assert len(await window.texts()) == 2


async def test_story_from_the_list_opens_with_its_settings_and_words(
    studio: Studio, window: Window, store: StoryStore
) -> None:
    await apply_settings(studio, window.chat, {"model": "fantasy", "top_k": 3})
    await window.type("Begin.")
    thread = await history_of(store).get_thread(window.chat.story_id)
    assert thread is not None
    again = Window(studio, window.chat.story_id)
    await events.resume(studio, again.chat, thread)
    await again.turn.catch_up(redraw=False)
    assert again.chat.choices == window.chat.choices
    assert again.chat.screen.shown == list(window.browser.messages)
    assert again.browser.buttons == ["continue", "versions", "retry", "undo", "copy"]


async def test_address_of_a_story_that_is_gone_opens_a_new_one(
    studio: Studio, window: Window, store: StoryStore
) -> None:
    await window.type("Begin.")
    gone = window.chat.story_id
    await store.delete_story(OWNER, gone)
    again = Window(studio, gone)
    await events.begin(studio, again.chat)
    await again.type("Another beginning.")
    assert again.chat.story_id != gone
    assert (await again.texts())[0] == "Another beginning."


async def test_without_models_words_are_kept_and_the_way_out_is_said(
    studio_with: Callable[[FakeEngine], Studio],
) -> None:
    window = Window(studio_with(FakeEngine(models=[])))
    await events.begin(window.studio, window.chat)
    assert _notices_of_no_model(window) == 1  # before anything is typed
    await window.type("Begin.")
    assert await window.texts() == ["Begin."]
    assert _notices_of_no_model(window) == 1


async def test_end_of_a_task_is_not_announced_while_it_runs(window: Window) -> None:
    emit = events._truthful(window.browser.emit, window.chat)
    window.chat.turns = 1
    window.browser.is_busy = True
    await emit("task_end", {})
    await emit("toast", {"message": "still passes"})
    assert window.browser.is_busy
    assert window.browser.toasts == ["still passes"]
    window.chat.turns = 0
    await emit("task_end", {})
    assert not window.browser.is_busy


async def test_a_window_opened_before_the_model_server_came_can_write_once_it_is_there(
    store: StoryStore,
) -> None:
    engine = Absent(models=[])
    await engine.start()
    studio = Studio(engine)
    studio.store = store
    window = Window(studio)
    await events.begin(studio, window.chat)
    assert any("cannot be reached" in html.unescape(o) for o in window.browser.outputs)
    await window.type("Early.")
    assert sum("cannot be reached" in html.unescape(o) for o in window.browser.outputs) == 1
    assert _notices_of_no_model(window) == 0
    engine._models = FakeEngine().models()
    await window.type("Begin.")
    assert any("dark night" in output for output in window.browser.outputs)


class Absent(FakeEngine):
    """One whose server was not there at first."""

    def health(self) -> Health:
        """Whatever it knows."""
        return Health(trouble="" if self._models else "The model server cannot be reached.")


def _notices_of_no_model(window: Window) -> int:
    return sum("no model to write with" in html.unescape(o) for o in window.browser.outputs)


class Page:
    """A page that opens a story by Chainlit's own handlers, and comes again when its socket ends
    without a word."""

    def __init__(self, studio: Studio, story_id: str, patch: pytest.MonkeyPatch) -> None:
        self.begun = 0
        self.resumed: list[str] = []
        self._auth = {"sessionId": str(uuid4()), "threadId": story_id, "clientType": "webapp"}
        self._sio = AsyncServer(async_mode="asgi", async_handlers=False)
        for name in ("connect", "connection_successful", "disconnect"):
            self._sio.on(name, getattr(chainlits, name))
        patch.setattr(chainlits, "sio", self._sio)
        patch.setattr(chainlits, "get_data_layer", lambda: history_of(studio.store))
        patch.setattr(chainlits, "require_login", lambda: True)
        patch.setattr(chainlits, "_authenticate_connection", self._authenticate)
        patch.setattr(config.code, "on_chat_start", self._begin)
        patch.setattr(config.code, "on_chat_resume", self._resume)
        patch.setattr(config.code, "on_chat_end", None)
        events.listen(self._sio, studio)

    async def _authenticate(self, environ: object) -> tuple[PersistedUser, str]:
        return PersistedUser(id=OWNER, identifier=OWNER, createdAt=""), ""

    async def _begin(self) -> None:
        self.begun += 1

    async def _resume(self, thread: ThreadDict) -> None:
        self.resumed.append(thread["id"])

    async def come(self) -> list[str]:
        """The names of what the page is told, and "closed" where its socket ends."""
        socket = AsyncSocket(self._sio.eio, str(uuid4()))
        self._sio.eio.sockets[socket.sid] = socket
        environ = {"asgi.scope": {"storygen.visitor": Visitor(OWNER, OWNER)}}
        await self._sio.eio.handlers["connect"](socket.sid, environ)
        for said in (f"0{json.dumps(self._auth)}", '2["connection_successful"]'):
            if not socket.closed:
                await self._sio.eio.handlers["message"](socket.sid, said)
        frames = [socket.queue.get_nowait() for _ in range(socket.queue.qsize())]
        said = [frame.data for frame in frames if frame is not None]
        told = [json.loads(data[1:])[0] for data in said if data.startswith("2")]
        return [*told, *(["closed"] if socket.closed else [])]


async def test_a_window_comes_again_to_its_story_when_the_database_is_back(
    studio: Studio, window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was told that there is no such story, and began another."""
    await window.type("Begin.")
    page = Page(studio, window.chat.story_id, monkeypatch)

    def away(after: int) -> None:
        calls = count()
        tree = StoryStore.tree

        async def read(store: StoryStore, owner: str, story_id: str) -> StoryTree:
            if next(calls) == after:
                raise DatabaseError("The story database is too busy to answer. Try again later.")
            return await tree(store, owner, story_id)

        monkeypatch.setattr(studio.store, "tree", partial(read, studio.store))

    for after in (0, 1):  # as it comes, and as it is shown its story
        away(after)
        told = await page.come()
        assert told[-1] == "closed"
        assert "resume_thread_error" not in told
        assert (page.begun, page.resumed) == (0, [])
    assert "resume_thread" in await page.come()
    assert (page.begun, page.resumed) == (0, [window.chat.story_id])
    for session in ws_sessions_id.values():
        events.leave(studio, studio.chat(session))
