"""What a window shows: the active branch, notices, buttons. Brought in line with the store, not
trusted to be so: only what differs is sent."""

import uuid
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, cast

import chainlit as cl
from chainlit.emitter import ChainlitEmitter
from chainlit.session import WebsocketSession
from chainlit.step import StepDict
from chainlit.types import ToastType

from storygen.chat.prose import sentence, typed, verbatim
from storygen.story.tree import Passage

AUTHOR = "storygen"
SHOWN = 40  # passages of a long story that the chat shows; the manuscript has them all
SHOWN_TEXT = 200_000  # characters of them: forty of the longest that the sidebar asks for
EARLIER = "earlier"  # id of the message above them that says so
REMEMBERED_BUTTONS = 50  # of several turns: more than a window can miss before it is noticed


def page_time(moment: datetime) -> str:
    """A time as the page reads it."""
    return f"{moment.replace(tzinfo=None).isoformat()}Z"


def tail(branch: Sequence[Passage], first: str | None = None) -> Sequence[Passage]:
    """The end of a branch, as much as the chat shows: from the passage `first` on for as long as
    that is not twice too much, so that not every passage takes one away at the top."""
    for n in range(_start(branch, 2), len(branch)):
        if branch[n].id == first:
            return branch[n:]
    return branch[_start(branch, 1) :]


def _start(branch: Sequence[Passage], times: int) -> int:
    """The first of so many passages as a window opens on, or of times as many: one at least."""
    here, room = len(branch), times * SHOWN_TEXT
    while here > max(0, len(branch) - times * SHOWN):
        room -= len(branch[here - 1].text)
        if room < 0 and here < len(branch):
            break
        here -= 1
    return here


def steps_of(branch: Sequence[Passage]) -> list[StepDict]:
    """What a window shows of a branch that it opens on."""
    shown = [step_of(passage) for passage in tail(branch)]
    hidden = len(branch) - len(shown)
    if not hidden:
        return shown
    many = "passage before these is" if hidden == 1 else f"{hidden:,} passages before these are"
    said = sentence(f"The {many} in the manuscript.")
    return [_step(EARLIER, said, createdAt=shown[0]["createdAt"]), *shown]


def step_of(passage: Passage) -> StepDict:
    """A passage as Chainlit's message. A writer's is shown as typed, and whole, because it can be
    edited there; a model's as Markdown, and of a very long one the end."""
    is_writers = passage.role == "writer"
    return _step(
        passage.id,
        typed(passage.text) if is_writers else verbatim(_end(passage.text)),
        type="user_message" if is_writers else "assistant_message",
        threadId=passage.story_id,
        streaming=passage.state == "streaming" and not passage.is_picked,
        createdAt=page_time(passage.created_at),
    )


def _end(text: str) -> str:
    return text if len(text) <= SHOWN_TEXT else f"…{text[-SHOWN_TEXT:]}"


class Screen:
    """One window, as far as the server knows what it shows."""

    def __init__(self, session: WebsocketSession) -> None:
        self.emitter = ChainlitEmitter(session)
        self.shown: list[str] = []  # ids of passages, in their order
        self._is_cut = False  # whether there are passages before those shown
        self._notices: list[str] = []
        self._awaited: tuple[str, str] | None = None  # what is waited for: a message's id, the text
        self._buttons: list[cl.Action] = []
        self._offered: deque[cl.Action] = deque(maxlen=REMEMBERED_BUTTONS)
        self._streamed = ""  # what of the passage being written was sent, encoded

    async def show(self, branch: Sequence[Passage], typed: str | None = None) -> None:
        """Show the end of this branch. `typed` is a message that the browser put at its end."""
        shown = tail(branch, self.shown[0] if self.shown else None)
        is_cut = len(branch) > len(shown)
        is_other = is_cut and self.shown and shown[0].id != self.shown[0]
        if is_cut != self._is_cut or is_other:
            await self.redraw(branch)  # the window cannot be told to put something on top
            return
        branch = shown
        ids = [passage.id for passage in branch]
        kept = 0
        while kept < min(len(ids), len(self.shown)) and ids[kept] == self.shown[kept]:
            kept += 1
        gone = self.shown[kept:]
        if typed is not None and ids[kept:] != [typed]:
            gone = [*gone, typed]
        for passage_id in gone:
            await self._delete(passage_id)
        for passage in branch[kept:]:
            await self.emitter.send_step(step_of(passage))
        self.shown = ids

    async def stream(self, passage_id: str, text: str, sent: int) -> None:
        """Show the passage being written, of which `sent` characters are there already."""
        new = verbatim(text, sent)
        if sent == 0:
            self._streamed = new
            await self.emitter.stream_start(_step(passage_id, new, streaming=True))
            self.shown.append(passage_id)
            return
        # Two code spans in a row would run together, so the whole text is sent anew.
        is_whole = self._streamed.endswith("`") and new.startswith("`")
        new = verbatim(text) if is_whole else new
        self._streamed = new
        await self.emitter.send_token(passage_id, new, is_sequence=is_whole)

    async def finish(self, passage: Passage) -> None:
        """Show the written passage as it was stored."""
        await self.emitter.update_step(step_of(passage))

    async def notice(self, text: str, *, is_error: bool = False) -> None:
        """Say something below the story; it goes when the story goes on."""
        self._notices.append(str(uuid.uuid4()))
        step = _step(self._notices[-1], sentence(text), isError=is_error)
        await self.emitter.send_step(step)

    async def wait(self, text: str) -> None:
        """Say what the writer waits for, in place of what was said of that before; empty to say
        nothing any more."""
        if self._awaited is not None and self._awaited[1] != text:
            if not text:
                await self._delete(self._awaited[0])
                self._awaited = None
            else:
                self._awaited = (self._awaited[0], text)
                await self.emitter.update_step(_step(self._awaited[0], sentence(text)))
        elif self._awaited is None and text:
            self._awaited = (str(uuid.uuid4()), text)
            await self.emitter.send_step(_step(self._awaited[0], sentence(text)))

    async def toast(self, text: str, kind: ToastType = "info") -> None:
        """Say something in passing."""
        await self.emitter.send_toast(text, kind)

    def opened_on(self, steps: Sequence[StepDict]) -> None:
        """The window was just filled with these passages and nothing else. One that was growing
        when they were read will have to be shown again."""
        ids = [step["id"] for step in steps if not step["streaming"]]
        self._is_cut = EARLIER in ids
        self.shown = [step_id for step_id in ids if step_id != EARLIER]

    async def opened(self, title: str) -> None:
        """The window's story now exists: the page lists it and takes its address."""
        session = self.emitter.session
        session.has_first_interaction = True
        first = {"interaction": title, "thread_id": session.thread_id}
        await self.emitter.emit("first_interaction", first)
        await self.tell(story=session.thread_id)

    async def tell(self, **news: Any) -> None:
        """Tell the workspace beside the chat (public/workspace) of something."""
        await self.emitter.send_window_message({"storygen": news})

    async def clear(self) -> None:
        """Take away buttons and notices, which speak of a moment that is over."""
        await self._remove(self._buttons)
        for notice in self._notices:
            await self._delete(notice)
        self._buttons, self._notices = [], []

    async def offer(self, actions: Sequence[cl.Action], under: str | None) -> None:
        """Show buttons under a message, or by themselves at the end."""
        if under is None and actions:
            under = str(uuid.uuid4())
            self._notices.append(under)
            await self.emitter.send_step(_step(under, ""))
        if not self._offered:  # the page may show them still, from a server that it has lost
            await self._remove(actions)
        for action in actions:
            action.forId = under
            await self.emitter.emit("action", action.to_dict())
        self._buttons = list(actions)
        self._offered.extend(actions)

    async def settings(self, tabs: list[dict[str, Any]]) -> None:
        """Fill the sidebar."""
        await self.emitter.emit("chat_settings", tabs)

    async def forget(self, message_id: str) -> None:
        """Take away a message that the browser showed and that is no passage."""
        await self._delete(message_id)

    async def redraw(self, branch: Sequence[Passage]) -> None:
        """Replace whatever the window shows, after it may have missed something."""
        steps = steps_of(branch)
        thread = {"id": self.emitter.session.thread_id, "steps": steps, "elements": []}
        await self.emitter.emit("resume_thread", thread)
        await self._remove(self._offered)  # it may not have heard that they are gone
        self.opened_on(steps)

    async def _remove(self, actions: Iterable[cl.Action]) -> None:
        for action in actions:
            await self.emitter.emit("remove_action", action.to_dict())

    async def _delete(self, message_id: str) -> None:
        await self.emitter.delete_step(_step(message_id, ""))


def _step(step_id: str, output: str, **more: Any) -> StepDict:
    step: dict[str, Any] = {
        "id": step_id,
        "parentId": None,
        "name": AUTHOR,
        "type": "assistant_message",
        "output": output,
        "input": "",
        "streaming": False,
        "isError": False,
        "metadata": {},
    }
    return cast(StepDict, step | more)
