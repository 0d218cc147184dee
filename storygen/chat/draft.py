"""Drafts: passages while models write them, stored as they grow, whatever becomes of the window."""

import asyncio
import logging
import secrets
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from storygen.catalogue import ModelInfo
from storygen.chat.state import Chat, Studio
from storygen.engine.interface import Engine, FinishReason
from storygen.errors import (
    BusyError,
    EngineError,
    PromptError,
    QuotaError,
    StoryError,
)
from storygen.metrics import PassageTimer
from storygen.params import MAX_SEED, SamplingParams
from storygen.story.prompt import Prompt, build_prompt, glue, prompt_budget
from storygen.story.steering import NO_STEERING, Steering
from storygen.story.tree import Passage

FLUSH_EVERY = 0.05  # seconds between what the window is sent; more often, browsers fall behind
SAVE_EVERY = 0.5
UNSAID = 0.15  # seconds that a model may read before it is said what it does
SEEDS = 2**31
NOTHING_YET = "The story is empty. Write how it begins, then a model goes on."

Tell = Callable[[], Awaitable[Sequence[Passage]]]  # gives the branch that a model goes on after
logger = logging.getLogger(__name__)


@dataclass
class Draft:
    """A passage while a model writes it. One that has a version grows beside others, and the head
    stays where it is until the writer picks one."""

    model: str
    params: SamplingParams
    steering: Steering
    version: int | None = None
    parent_id: str | None = None  # known once the branch is
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    text: str = ""
    finish_reason: FinishReason = "cancelled"  # until the engine says otherwise
    forgotten: int = 0  # words of the story the model was not shown
    place: int | None = None  # in line, 0 while its model is opened, None when it is written
    refusal: str = ""  # why it has no place
    since: float = field(default_factory=time.monotonic)  # when its place was another
    shown: int = 0  # characters
    saved_at: float = 0.0

    @property
    def settings(self) -> dict[str, Any]:
        """What it takes to write it again: the parameters, and the steering where there is any."""
        told = {} if self.steering == NO_STEERING else {"steering": self.steering.as_json()}
        return asdict(self.params) | told


class Author:
    """Has models write in one window's story."""

    def __init__(self, studio: Studio, chat: Chat) -> None:
        self.store, self.engine, self.chat = studio.store, studio.engine, chat
        self._studio = studio
        self.writing = studio.writing(chat)
        self._news = asyncio.Event()  # there is something that the writer should see at once

    async def write(self, drafts: Sequence[Draft], tell: Tell) -> None:
        """Let models go on after a branch, all drafts at once, until they end or are stopped.

        The engine is asked for its places first, and the branch told meanwhile: who has to wait,
        or is refused, hears of it at once, and what the writer wrote is stored all the same. What
        there is of each draft is stored at its end. Raises what tell or the engine raised.
        """
        telling = asyncio.create_task(self._told(tell))
        readers = [
            asyncio.create_task(self._read(draft, lambda: asyncio.shield(telling)))
            for draft in drafts
        ]
        self.writing.readers = set(readers)
        try:
            while busy := [task for task in (telling, *readers) if not task.done()]:
                await self._next_news(busy)
                await self.chat.screen.wait(waiting_for(drafts, time.monotonic()))
                for draft in drafts:
                    await self._keep(draft)
        finally:
            self.writing.interrupt()
            await asyncio.wait([telling, *readers])
            self.writing.readers = set()
            await self.chat.screen.wait("")
            ends = [self._finish(draft) for draft in drafts]
            failures = [e for e in await asyncio.gather(*ends, return_exceptions=True) if e]
        telling.result()
        if failures:  # the others are stored all the same
            raise failures[0]
        for reader in readers:
            if not reader.cancelled():
                reader.result()

    async def text_of(self, draft: Draft, tell: Tell) -> str:
        """What would be written, told to nobody. Raises StoryError where it was stopped."""
        reader = asyncio.create_task(self._read(draft, tell))
        self.writing.readers = {reader}
        try:
            await asyncio.wait({reader})
        finally:
            self.writing.readers = set()
            reader.cancel()
        if reader.cancelled():
            raise StoryError("It was stopped before its end, so nothing was compared.")
        reader.result()
        return draft.text

    async def _next_news(self, tasks: Sequence[asyncio.Task[Any]]) -> None:
        """Wait until a task ends, a passage begins, or it is time to show more."""
        news = asyncio.create_task(self._news.wait())
        both = {news, *tasks}
        await asyncio.wait(both, timeout=FLUSH_EVERY, return_when=asyncio.FIRST_COMPLETED)
        news.cancel()
        self._news.clear()

    async def _told(self, tell: Tell) -> Sequence[Passage]:
        async with self._studio.telling.of(self.chat.owner):
            return await tell()

    async def _read(self, draft: Draft, tell: Tell) -> None:
        """Take in what the engine writes. This is what Stop cancels; it never touches the store."""
        model = self._studio.model(self.chat.owner, draft.model)
        longest, trailing = draft.params.max_new_tokens, ""

        async def prompt() -> str:
            nonlocal trailing
            branch = await tell()
            draft.parent_id = branch[-1].id if branch else None
            made = await prompt_for(self.engine, model, branch, draft.steering, longest)
            if not made.text:
                raise PromptError(NOTHING_YET)
            draft.forgotten, trailing = made.left_out, made.trailing
            return made.text

        draft.finish_reason = "error"
        timer = PassageTimer()
        stream = self.engine.stream(draft.model, prompt, draft.params, user=self.chat.owner)
        try:
            async with aclosing(stream) as segments:
                async for segment in segments:
                    if segment.place != draft.place or not draft.text:
                        self._news.set()
                    if segment.place != draft.place:
                        draft.place, draft.since = segment.place, time.monotonic()
                    timer.took(segment.token_count)
                    text = segment.text if draft.text else glue(trailing, segment.text)
                    draft.text += text
                    draft.finish_reason = segment.finish_reason or draft.finish_reason
        except asyncio.CancelledError:
            draft.finish_reason = "cancelled"
            raise
        except (BusyError, QuotaError) as error:
            draft.refusal = str(error)
            raise
        except EngineError:
            self._studio.failures += 1
            raise
        finally:
            timer.ended(draft.finish_reason)
            told = {"reason": draft.finish_reason, "tokens": timer.tokens}
            logger.info("Passage written", extra={"fields": told})

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
                params=draft.settings,
                state="streaming",
                move_head=draft.version is None,
            )
            draft.saved_at = now
        elif now - draft.saved_at >= SAVE_EVERY:
            await self.store.grow_passage(self.chat.owner, draft.id, text)
            draft.saved_at = now
        if draft.version is None:
            await self.chat.screen.stream(draft.id, text, draft.shown)
        await self._tell(draft, text[draft.shown :])
        draft.shown = len(text)

    async def _finish(self, draft: Draft) -> None:
        """Store the passage as it will stay, or leave that to the store if it cannot be now."""
        draft.saved_at = time.monotonic()  # it is stored whole, below
        await self._keep(draft)
        if draft.shown:
            passage = await self.store.grow_passage(
                self.chat.owner,
                draft.id,
                draft.text,
                state="complete",
                finish_reason=draft.finish_reason,
            )
            if draft.version is None:
                await self.chat.screen.finish(passage)
        await self._tell(draft, "", done=draft.finish_reason)

    async def _tell(self, draft: Draft, text: str, **more: str) -> None:
        """Tell the workspace of a piece of the passage."""
        place = {"id": draft.id, "parent": draft.parent_id, "version": draft.version}
        await self.chat.screen.tell(growing=place | {"from": draft.shown, "text": text} | more)


def waiting_for(drafts: Sequence[Draft], now: float) -> str:
    """What the writer waits for, or that it will not come, in a sentence; empty where words do."""
    if refusal := next((draft.refusal for draft in drafts if draft.refusal), ""):
        return refusal
    places = [draft.place for draft in drafts if draft.place is not None]
    last = max(places, default=None)
    if last is None and any(draft.text or now - draft.since < UNSAID for draft in drafts):
        return ""
    if not last:
        return "The model is getting ready to write."
    return f"{_ordinal(last)} in line: passages that were asked for earlier are written first."


def _ordinal(n: int) -> str:
    """
    >>> [_ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 102)]
    ['1st', '2nd', '3rd', '4th', '11th', '12th', '13th', '21st', '102nd']
    """
    teens = n % 100 in (11, 12, 13)
    return f"{n}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"


async def prompt_for(
    engine: Engine,
    model: ModelInfo,
    branch: Sequence[Passage],
    steering: Steering,
    max_new_tokens: int,
) -> Prompt:
    """What a model reads before it goes on after the branch."""
    return await build_prompt(
        branch,
        budget=prompt_budget(model.block_size, max_new_tokens),
        count_tokens=partial(engine.count_tokens, model.name),
        steering=steering,
        template=model.prompt_template,
    )


def steered(params: SamplingParams, steering: Steering) -> SamplingParams:
    """The parameters with what the steering says of how passages end and what they avoid."""
    return replace(
        params,
        stop=steering.stop,
        banned=steering.banned,
        end_at_sentence=steering.end_at_sentence,
        loop_guard=steering.loop_guard,
    )


def drawn_seed(chosen: int | None, version: int = 0) -> int:
    """The seed of a passage: drawn, or the writer's own, moved on for each further version."""
    return secrets.randbelow(SEEDS) if chosen is None else (chosen + version) % MAX_SEED
