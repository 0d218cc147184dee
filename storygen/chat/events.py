"""What comes over the socket: messages, edits, Stop, settings. In place of Chainlit's handlers,
which let a message run beside another, an edit run beyond Stop, and settings in unread."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from chainlit.action import Action
from chainlit.chat_context import chat_contexts
from chainlit.session import WebsocketSession
from chainlit.types import ThreadDict
from socketio import AsyncServer

from storygen import logs, metrics
from storygen.chat import buttons, guards, workspace
from storygen.chat.buttons import commands, head_of
from storygen.chat.controls import remembered
from storygen.chat.doors import visitor_of
from storygen.chat.draft import NOTHING_YET
from storygen.chat.settings import apply_settings, show_settings
from storygen.chat.sockets import Sockets, drop, socket_of
from storygen.chat.state import Chat, Studio
from storygen.chat.turn import Turn
from storygen.errors import DatabaseError, StoryError, StorygenError

Handler = Callable[[Chat, Any], Awaitable[None]]

VERBS = {
    buttons.CONTINUE: Turn.go_on,
    buttons.VERSIONS: Turn.versions,
    buttons.RETRY: Turn.retry,
    buttons.WARMER: Turn.warmer,
    buttons.UNDO: Turn.undo,
    buttons.REDO: Turn.redo,
}

MAX_SOCKET_BYTES = 5_000_000  # a million characters of any script arrive, to be refused with a word
OPENING_SECONDS = 10.0  # that a window may take to say which story it shows
MOST_EVENTS = 64  # of a window that are worked on at a time; more are a flood, and are let go
FLOOD = (
    f"More than {MOST_EVENTS} things were asked for at once, so some were not done. Words that "
    "were not added are still on the page: send them again."
)
ENDING = (
    "storygen is being restarted, so nothing was begun. Your story is saved, and your words are "
    "still on the page: send them again in a moment."
)
logger = logging.getLogger(__name__)


def listen(sio: AsyncServer, studio: Studio) -> None:
    """Put our handlers in the place of Chainlit's; call once, when Chainlit's are there."""
    chainlits = sio.handlers["/"]
    connect, connected = chainlits["connect"], chainlits["connection_successful"]
    sockets = Sockets(sio)

    async def on_connect(sid: str, environ: dict[str, Any], auth: Any) -> Any:
        guards.require_identities(auth)
        visitor = visitor_of(environ["asgi.scope"])
        owner = visitor.owner if visitor else ""
        own = {"sessionId": guards.own_session(auth["sessionId"], owner)}
        answer = await connect(sid, environ, {**auth, **own})
        session = WebsocketSession.require(sid)
        session.emit = _truthful(sockets.bounded(session, session.emit), studio.chat(session))
        return answer

    async def on_connected(sid: str) -> None:
        session = WebsocketSession.get(sid)
        if session is None:  # the window has gone again
            return
        try:
            await connected(sid)
        except DatabaseError as error:  # the page comes again, as one that was never here
            logger.warning("A window could not be shown its story: %s", error)
            session.to_clear = True
            if socket := socket_of(sio, session):
                await drop(socket)
            return
        chat = studio.chat(session)
        chat.opened.set()
        if chat.is_stored:
            chat.start(Turn(studio, chat).catch_up(redraw=session.restored))

    async def on_message(chat: Chat, payload: Any) -> None:
        written = guards.written_message(payload)
        turn = Turn(studio, chat)  # before anything is awaited: Stop counts from here on
        if written.command == buttons.TITLE:
            await chat.screen.forget(written.id)
            await turn.name(written.text)
            return
        if written.command in VERBS:
            await type_command(turn, written)
            return
        if not chat.is_stored and written.command:  # an opening line brings its model with it
            await apply_settings(studio, chat, {"model": written.command})
        await turn.say(written.id, written.text)

    async def on_edit(chat: Chat, payload: Any) -> None:
        written = guards.written_message(payload)
        await Turn(studio, chat).edit(written.id, written.text)

    async def on_stop(chat: Chat, _: Any) -> None:
        studio.stop(chat)

    async def on_settings(chat: Chat, values: Any) -> None:
        await apply_settings(studio, chat, values)

    async def on_settings_done(chat: Chat, values: Any) -> None:
        await apply_settings(studio, chat, values)
        await show_settings(studio, chat)  # with the preset they have come to be of

    async def on_window(chat: Chat, payload: Any) -> None:
        if (asked := workspace.asked(payload)) is not None:
            await workspace.do(studio, chat, asked)

    async def on_nothing(chat: Chat, _: Any) -> None:
        """Voice and favourites: the page has neither."""

    handlers: dict[str, Handler] = {
        "client_message": on_message,
        "edit_message": on_edit,
        "chat_settings_edit": on_settings,
        "chat_settings_change": on_settings_done,
        "window_message": on_window,
    }
    kept = {"connect", "connection_successful", "disconnect", "clear_session"}
    for event in set(chainlits) - kept:
        sio.on(event, _handled(studio, _bounded(handlers.get(event, on_nothing))))
    sio.on("stop", _handled(studio, on_stop))  # above all in a flood
    sio.on("connect", on_connect)
    sio.on("connection_successful", on_connected)
    sio.eio.max_http_buffer_size = MAX_SOCKET_BYTES


async def begin(studio: Studio, chat: Chat) -> None:
    """A window opens on a story that will exist from its first message on."""
    if chat.session.thread_id_to_resume:  # it was not found, and its id may be a deleted story's
        chat.session.thread_id = str(uuid.uuid4())
    models = studio.models(chat.owner)
    await show_settings(studio, chat)
    await chat.screen.emitter.set_commands(commands())
    if not models:
        await chat.screen.notice(studio.no_model())


async def resume(studio: Studio, chat: Chat, thread: ThreadDict) -> None:
    """A window opens on a story from the list, with the settings it had."""
    chat.is_stored = True
    chat.screen.opened_on(thread["steps"])
    models = studio.models(chat.owner)
    story = await studio.store.story(chat.owner, chat.story_id)
    chat.choices = remembered(story.settings, models)
    await show_settings(studio, chat)
    await chat.screen.emitter.set_commands(commands())


def leave(studio: Studio, chat: Chat) -> None:
    """A window is gone: nobody reads what is being written for it."""
    studio.leave(chat)
    chat_contexts.pop(chat.session.id, None)  # Chainlit's own copy of the texts, never let go


async def press(studio: Studio, chat: Chat, action: Action) -> None:
    """A button under the last passage. The work goes on after the answer, so that the page stays
    able to stop it."""
    try:
        _refuse_at_the_end(studio)
        if len(chat.tasks) >= MOST_EVENTS:
            raise StoryError(FLOOD)
        chat.start(VERBS[action.name](Turn(studio, chat), head_of(action)))
    except StoryError as error:
        await chat.screen.toast(str(error), "warning")


async def type_command(turn: Turn, written: guards.Written) -> None:
    """What a button does, typed. Words typed with it are never dropped."""
    chat, verb = turn.chat, VERBS[written.command]
    if written.text.strip() and verb is Turn.go_on:
        await turn.say(written.id, written.text)
    elif written.text.strip():
        raise StoryError(
            f"/{written.command} takes no words, so nothing was done. Your words are still on the "
            "page: copy them and send them without it."
        )
    elif not chat.is_stored:
        await chat.screen.forget(written.id)
        raise StoryError(NOTHING_YET)
    else:
        await chat.screen.forget(written.id)
        tree = await turn.store.tree(chat.owner, chat.story_id)
        await verb(turn, tree.head_id or "")


def _handled(studio: Studio, handler: Handler) -> Callable[..., Awaitable[None]]:
    """A socket handler that finds its chat and lets no error pass unseen."""

    async def handle(sid: str, payload: Any = None, *_: Any) -> None:
        session = WebsocketSession.get(sid)
        if session is None:
            return
        chat = studio.chat(session)
        with logs.numbered() as number:
            try:
                _refuse_at_the_end(studio)
                await handler(chat, payload)
            except StorygenError as error:
                metrics.error_told(error)
                await chat.screen.notice(str(error), is_error=True)
            except Exception as error:
                metrics.error_told(error)
                logger.exception("Error at an event of story %s", chat.story_id)
                await chat.screen.notice(
                    f"That could not be done (number {number} in the log). Nothing stored is lost.",
                    is_error=True,
                )

    return handle


def _bounded(handler: Handler) -> Handler:
    """A handler that lets go of what comes faster than it can be worked on, and says so once."""

    async def handle(chat: Chat, payload: Any) -> None:
        if chat.events >= MOST_EVENTS:
            if not chat.is_flooding:
                chat.is_flooding = True
                raise StoryError(FLOOD)
            return
        chat.events += 1
        try:
            # What was typed while there was no server comes before the page says what it shows.
            with suppress(TimeoutError):
                async with asyncio.timeout(OPENING_SECONDS):
                    await chat.opened.wait()
            await handler(chat, payload)
        finally:
            chat.events -= 1
            chat.is_flooding = chat.is_flooding and chat.events > 0

    return handle


def _refuse_at_the_end(studio: Studio) -> None:
    if studio.is_ending:
        raise StoryError(ENDING)


def _truthful(
    emit: Callable[[str, Any], Awaitable[None]], chat: Chat
) -> Callable[[str, Any], Awaitable[None]]:
    """An emit that does not say the task has ended while it has not.

    Chainlit says so after every settings event, and the page then takes Stop away.
    """

    async def emit_unless_false(event: str, data: Any) -> None:
        if event != "task_end" or not chat.turns:
            await emit(event, data)

    return emit_unless_false
