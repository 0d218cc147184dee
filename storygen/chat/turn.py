"""One turn of writing: what the writer does is stored, then a model's passage is shown as it grows.

A turn has its story to itself. Whatever ends it (Stop, a closed window, an error), what was written
stays, the screen shows what is stored, and the next turn can begin.
"""

import asyncio
import logging
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial

from storygen.chat.buttons import buttons
from storygen.chat.state import Chat, Studio, Writing
from storygen.engine.interface import FinishReason
from storygen.errors import ModelNotFoundError, PromptError, StoryError, StorygenError
from storygen.params import MAX_SEED, SamplingParams
from storygen.story.prompt import build_prompt, glue, prompt_budget
from storygen.story.store import INTERRUPTED
from storygen.story.tree import Passage, StoryTree

FLUSH_EVERY = 0.05  # seconds between what the window is sent; more often, browsers fall behind
SAVE_EVERY = 0.5
TITLE_LENGTH = 60
SEEDS = 2**31

logger = logging.getLogger(__name__)


@dataclass
class Draft:
    """A passage while a model writes it."""

    model: str
    params: SamplingParams
    parent_id: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    text: str = ""
    finish_reason: FinishReason = "cancelled"  # until the engine says otherwise
    forgotten: int = 0  # words of the story the model was not shown
    shown: int = 0  # characters
    saved_at: float = 0.0


class Turn:
    """What one window can do with its story: every public method is one turn, and never raises.

    Use each object once; whether Stop was pressed is counted from when it is made.
    """

    def __init__(self, studio: Studio, chat: Chat) -> None:
        self.studio, self.store, self.engine = studio, studio.store, studio.engine
        self.chat, self.screen = chat, chat.screen
        self.writing: Writing = studio.writing(chat)
        self.stops = self._stops()

    async def say(self, message_id: str, text: str) -> None:
        """The writer goes on, then the model."""
        await self._run(partial(self._say, message_id, text))

    async def edit(self, message_id: str, text: str) -> None:
        """The writer words a passage anew; the model goes on from there."""
        await self._run(partial(self._edit, message_id, text))

    async def go_on(self, head_id: str) -> None:
        """The model goes on from the end."""
        await self._press(partial(self._go_on, head_id))

    async def retry(self, head_id: str) -> None:
        """The model writes its last passage anew, beside the old one."""
        await self._press(partial(self._retry, head_id))

    async def undo(self, head_id: str) -> None:
        """Back to the story as it was one step earlier."""
        await self._press(partial(self._step_back, head_id))

    async def redo(self, head_id: str) -> None:
        """Forward again."""
        await self._press(partial(self._step_forth, head_id))

    async def catch_up(self, *, redraw: bool) -> None:
        """Bring a window in line with its story, once nobody else is writing there."""
        await self._run(partial(self._catch_up, redraw), interrupts=False)

    async def _say(self, message_id: str, text: str) -> None:
        if not text.strip():
            raise PromptError("There is nothing in this message, so nothing was added.")
        if not self.chat.is_stored:
            await self._open_story(text)
        await self.store.add_passage(
            self.chat.owner, self.chat.story_id, "writer", text, passage_id=message_id
        )
        branch = (await self._tree()).branch()
        await self.screen.show(branch, typed=message_id)
        await self._continue(branch)

    async def _edit(self, message_id: str, text: str) -> None:
        tree = await self._tree()
        if message_id not in tree or tree[message_id].role != "writer":
            raise StoryError("This passage is no longer in the story, so it cannot be edited.")
        if not text.strip():
            raise PromptError("A passage cannot be edited to nothing; use Undo to take it away.")
        parent_id = tree[message_id].parent_id
        await self.store.add_passage(
            self.chat.owner, self.chat.story_id, "writer", text, parent_id=parent_id
        )
        branch = (await self._tree()).branch()
        await self.screen.show(branch, typed=message_id)
        await self._continue(branch)

    async def _go_on(self, head_id: str) -> None:
        tree = await self._tree_at(head_id)
        await self._continue(tree.branch())

    async def _retry(self, head_id: str) -> None:
        tree = await self._tree_at(head_id)
        old = tree[head_id]
        if old.role != "model" or old.parent_id is None:
            raise StoryError("There is no passage of a model here to write anew.")
        if self.chat.choices.params.temperature == 0:
            await self.screen.toast("At temperature 0 every try gives the same words.")
        branch = tree.branch(old.parent_id)
        await self.screen.show(branch)
        await self._continue(branch, version=len(tree.siblings(head_id)))

    async def _step_back(self, head_id: str) -> None:
        await self._tree_at(head_id)
        await self.store.undo(self.chat.owner, self.chat.story_id)

    async def _step_forth(self, head_id: str) -> None:
        await self._tree_at(head_id)
        await self.store.redo(self.chat.owner, self.chat.story_id)

    async def _continue(self, branch: Sequence[Passage], version: int = 0) -> None:
        """Let the chosen model continue a branch, unless the writer has gone on or pressed Stop."""
        if self.writing.waiting or self._stops() != self.stops:
            return
        if not branch:
            raise PromptError("The story is empty. Write how it begins, then a model goes on.")
        choices = self.chat.choices
        params = replace(choices.params, seed=_seed(choices.params.seed, version))
        draft = Draft(choices.model, params, branch[-1].id)
        reader = self.writing.reader = asyncio.create_task(self._read(draft, branch))
        try:
            while not reader.done():
                await asyncio.wait({reader}, timeout=FLUSH_EVERY)
                await self._keep(draft)
        finally:
            reader.cancel()
            await asyncio.wait({reader})
            self.writing.reader = None
            await self._finish(draft)
        if not reader.cancelled():
            reader.result()  # raises what the engine raised
        await self._remark(draft)

    async def _read(self, draft: Draft, branch: Sequence[Passage]) -> None:
        """Take in what the engine writes. This is what Stop cancels; it never touches the store."""
        model = next((m for m in self.engine.models() if m.name == draft.model), None)
        if model is None:
            raise ModelNotFoundError(no_model(draft.model))
        prompt = await build_prompt(
            branch,
            budget=prompt_budget(model.block_size, draft.params.max_new_tokens),
            count_tokens=partial(self.engine.count_tokens, draft.model),
        )
        draft.forgotten = prompt.left_out
        draft.finish_reason = "error"
        stream = self.engine.stream(draft.model, prompt.text, draft.params)
        try:
            async with aclosing(stream) as segments:
                async for segment in segments:
                    text = segment.text if draft.text else glue(prompt.trailing, segment.text)
                    draft.text += text
                    draft.finish_reason = segment.finish_reason or draft.finish_reason
        except asyncio.CancelledError:
            draft.finish_reason = "cancelled"
            raise

    async def _keep(self, draft: Draft) -> None:
        """Store what is new if it is time, and show it."""
        if len(draft.text) == draft.shown:
            return
        text, now = draft.text, time.monotonic()
        if draft.shown == 0:
            await self.store.add_passage(
                self.chat.owner,
                self.chat.story_id,
                "model",
                text,
                parent_id=draft.parent_id,
                passage_id=draft.id,
                model=draft.model,
                params=asdict(draft.params),
                state="streaming",
            )
            draft.saved_at = now
        elif now - draft.saved_at >= SAVE_EVERY:
            await self.store.grow_passage(self.chat.owner, draft.id, text)
            draft.saved_at = now
        await self.screen.stream(draft.id, text, draft.shown)
        draft.shown = len(text)

    async def _finish(self, draft: Draft) -> None:
        """Store the passage as it will stay."""
        await self._keep(draft)
        if draft.shown:
            await self.store.grow_passage(
                self.chat.owner,
                draft.id,
                draft.text,
                state="complete",
                finish_reason=draft.finish_reason,
            )
            await self.screen.finish((await self._tree())[draft.id])

    async def _remark(self, draft: Draft) -> None:
        """Say what the writer should know of this passage, quietly."""
        if draft.finish_reason == "loop":
            await self.screen.notice(
                "The passage began to repeat itself and was ended. Try again, perhaps with a "
                "higher temperature."
            )
        elif not draft.text and draft.finish_reason != "cancelled":
            await self.screen.notice(
                "The model had nothing to add here. Try again, or write on yourself."
            )
        # Once, and again when it has doubled: the writer knows, but is not told each time.
        if draft.forgotten >= max(1, 2 * self.chat.told_words):
            self.chat.told_words = draft.forgotten
            await self.screen.toast(
                f"The model no longer sees the first {draft.forgotten:,} words of the story."
            )

    async def _open_story(self, text: str) -> None:
        """The story exists from its first message on, and is in the list from then."""
        title = _title(text)
        await self.store.create_story(
            self.chat.owner,
            story_id=self.chat.story_id,
            title=title,
            settings=self.chat.choices.as_settings(),
        )
        self.chat.is_stored = True
        await self.screen.opened(title)

    def _stops(self) -> int:
        """Grows whenever this window should have nothing written any more."""
        return self.writing.stops + self.chat.stops

    async def _tree(self) -> StoryTree:
        return await self.store.tree(self.chat.owner, self.chat.story_id)

    async def _tree_at(self, head_id: str) -> StoryTree:
        """The tree, if the story still ends where the writer saw it end."""
        tree = await self._tree()
        if (tree.head_id or "") != head_id:
            raise StoryError(
                "This button belongs to an earlier end of the story; use those under its last "
                "passage."
            )
        return tree

    async def _catch_up(self, redraw: bool) -> None:
        branch = (await self._tree()).branch()
        if redraw:
            await self.screen.redraw(branch)
        if branch and branch[-1].finish_reason == INTERRUPTED:
            await self.screen.notice(
                "This passage was cut off when storygen ended. Continue goes on from its last word."
            )

    async def _press(self, work: Callable[[], Awaitable[None]]) -> None:
        """A button waits for nothing: the end of the story it was pressed for would be gone."""
        if self.writing.lock.locked():
            await self.screen.toast("A passage is being written here. Press Stop first.")
        else:
            await self._run(work)

    async def _run(self, work: Callable[[], Awaitable[None]], *, interrupts: bool = True) -> None:
        """Have the word, do the work, say what went wrong, show what is stored."""
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
            await self.screen.notice(str(error), is_error=True)
        except Exception:
            number = secrets.token_hex(3)
            logger.exception("Error %s in story %s", number, self.chat.story_id)
            await self.screen.notice(
                f"Something went wrong that should not (number {number} in the log). "
                "Nothing that was stored is lost.",
                is_error=True,
            )

    async def _settle(self) -> None:
        """Show the story as it is stored, with the buttons that make sense at its end."""
        if not self.chat.is_stored:
            return
        branch = (await self._tree()).branch()
        await self.screen.show(branch)
        can_redo = await self.store.can_redo(self.chat.owner, self.chat.story_id)
        offered = buttons(branch, can_redo=can_redo)
        ends_with_model = bool(branch) and branch[-1].role == "model"
        await self.screen.offer(offered, branch[-1].id if ends_with_model else None)


def no_model(name: str) -> str:
    """Why nothing is written: the model of this name is gone, or, without a name, none is here."""
    if not name:
        return (
            "There is no model to write with yet. Put one into the weights folder, or train one "
            "with python -m storygen.train."
        )
    return f"The model {name[:80]!r} is gone. Choose another in the settings."


def _seed(chosen: int | None, version: int) -> int:
    """The seed of a passage: drawn, or the writer's own, moved on for each further version."""
    return secrets.randbelow(SEEDS) if chosen is None else (chosen + version) % MAX_SEED


def _title(text: str) -> str:
    """The first words of a story, until the writer names it."""
    words = " ".join(text.split())
    if len(words) <= TITLE_LENGTH:
        return words
    cut = words[: TITLE_LENGTH - 1]
    return (cut.rpartition(" ")[0] or cut) + "…"
