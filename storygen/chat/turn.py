"""Turns: what a writer can do in a story, one method each."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

from storygen.chat.draft import Author, Draft, Tell, drawn_seed, steered
from storygen.chat.floor import Floor
from storygen.chat.state import Chat, Studio
from storygen.errors import PromptError, StoryError
from storygen.params import RANGES, SamplingParams
from storygen.story.growing import INTERRUPTED
from storygen.story.pieces import split
from storygen.story.rows import MAX_TEXT
from storygen.story.steering import NO_STEERING, Steering, from_json, steering_of
from storygen.story.tree import PICKED, Passage, StoryTree
from storygen.story.words import MAX_SOUGHT, Sought

TITLE_LENGTH = 60
WARMER = 0.2  # what Retry warmer adds to the temperature
MOST_VERSIONS = 4
MAX_TAKEN = 100  # characters of a word out of the fan
MAX_REPLACED = 20_000_000  # characters worded anew at once; a draft taken in has half of that

Work = Callable[[], Awaitable[None]]


class Turn:
    """What one window can do with its story: every public method is one turn, and never raises.

    Use each object once; whether Stop was pressed is counted from when it is made.
    """

    def __init__(self, studio: Studio, chat: Chat) -> None:
        self.store, self.chat, self.screen = studio.store, chat, chat.screen
        self.floor, self.author = Floor(studio, chat), Author(studio, chat)

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
        await self._press(partial(self._retry, head_id, 0))

    async def warmer(self, head_id: str) -> None:
        """The same with a higher temperature, this once."""
        await self._press(partial(self._retry, head_id, WARMER))

    async def versions(self, head_id: str, n: int = 3) -> None:
        """The model goes on in n ways at once; the writer picks one."""
        await self._press(partial(self._versions, head_id, n))

    async def undo(self, head_id: str) -> None:
        """Back to the story as it was one step earlier."""
        await self._press(partial(self._step_back, head_id))

    async def redo(self, head_id: str) -> None:
        """Forward again."""
        await self._press(partial(self._step_forth, head_id))

    async def go(self, passage_id: str | None) -> None:
        """Stand at any passage of the story, or before the first."""
        await self._run(partial(self._go, passage_id))

    async def reword(self, passage_id: str, text: str) -> None:
        """Give a passage other words and leave what follows as it is."""
        await self._run(partial(self._reword, passage_id, text))

    async def replace(self, sought: Sought, new: str) -> None:
        """Word something anew wherever it stands on the branch."""
        await self._run(partial(self._replace, sought, new))

    async def take(self, text: str) -> None:
        """A word out of the fan becomes part of the story."""
        await self._run(partial(self._take, text), picking=True)

    async def again(self, passage_id: str) -> None:
        """Have a passage written once more with the same seed and settings."""
        await self._run(partial(self._again, passage_id))

    async def name(self, title: str) -> None:
        """What the story is called, for models that begin with a title; begin one that is new."""
        await self._run(partial(self._name, title))

    async def catch_up(self, *, redraw: bool) -> None:
        """Bring a window in line with its story, once nobody else is writing there."""
        await self.floor.run(partial(self._catch_up, redraw), interrupts=False)

    async def _run(self, work: Work, *, picking: bool = False) -> None:
        await self.floor.run(work if picking else partial(self._picked_then, work))

    async def _press(self, work: Work) -> None:
        await self.floor.press(partial(self._picked_then, work))

    async def _picked_then(self, work: Work) -> None:
        """A passage put together from words of the fan is complete when something else is done."""
        if self.chat.is_stored:
            tree = await self.floor.tree()
            if (picked := _being_picked(tree)) is not None:
                await self._grow_picked(picked, picked.text, state="complete")
        await work()

    async def _say(self, message_id: str, text: str) -> None:
        if not text.strip():
            raise PromptError("There is nothing in this message, so nothing was added.")
        await self._continue(partial(self._told, message_id, text))

    async def _told(self, message_id: str, text: str) -> Sequence[Passage]:
        """Store what the writer wrote, and show it; the branch that ends with it."""
        pieces = await asyncio.to_thread(
            split, text
        )  # a long text is several passages, and one step for Undo
        if not self.chat.is_stored:
            branch = await self.store.begin_story(
                self.chat.owner, **self._new_story(text), texts=pieces, passage_id=message_id
            )
            await self._opened(text)
            await self.screen.show(branch, typed=message_id)
            return branch
        await self.store.add_writing(
            self.chat.owner, self.chat.story_id, pieces, passage_id=message_id
        )
        return await self._shown(message_id)

    async def _shown(self, message_id: str) -> Sequence[Passage]:
        """The branch, shown after a message that the browser put at its end."""
        branch = (await self.floor.tree()).branch()
        await self.screen.show(branch, typed=message_id)
        return branch

    async def _edit(self, message_id: str, text: str) -> None:
        tree = await self.floor.tree()
        if message_id not in tree or tree[message_id].role != "writer":
            raise StoryError("This passage is no longer in the story, so it cannot be edited.")
        if not text.strip():
            raise PromptError("A passage cannot be edited to nothing; use Undo to take it away.")
        parent_id = tree[message_id].parent_id

        async def told() -> Sequence[Passage]:
            await self.store.add_passage(
                self.chat.owner, self.chat.story_id, "writer", text, parent_id=parent_id
            )
            return await self._shown(message_id)

        await self._continue(told)

    async def _go_on(self, head_id: str) -> None:
        branch = (await self.floor.tree_at(head_id)).branch()
        await self._continue(_known(branch))

    async def _retry(self, head_id: str, warmer: float) -> None:
        tree = await self.floor.tree_at(head_id)
        if not head_id or tree[head_id].role != "model":
            raise StoryError("There is no passage of a model here to write anew.")
        params = self.chat.choices.params
        if params.temperature + warmer == 0:
            await self.screen.toast("At temperature 0 every try gives the same words.")
        _, _, hottest = RANGES["temperature"]
        params = replace(params, temperature=min(params.temperature + warmer, hottest))
        parent_id = tree[head_id].parent_id
        branch = tree.branch(parent_id) if parent_id else []
        await self.screen.show(branch)
        draft = await self._draft(params, version=len(tree.siblings(head_id)))
        await self._continue(_known(branch), draft)

    async def _versions(self, head_id: str, n: int) -> None:
        if not 1 <= n <= MOST_VERSIONS:
            raise StoryError(f"{n} versions cannot be written at once: 1 to {MOST_VERSIONS} can.")
        if self.chat.choices.params.temperature == 0:
            await self.screen.toast("At temperature 0 every way gives the same words.")
        branch = (await self.floor.tree_at(head_id)).branch()
        drafts = [replace(await self._draft(version=v), version=v) for v in range(n)]
        if not self.floor.is_called_off:
            await self.author.write(drafts, _known(branch))

    async def _step_back(self, head_id: str) -> None:
        await self.floor.tree_at(head_id)
        await self.store.undo(self.chat.owner, self.chat.story_id)

    async def _step_forth(self, head_id: str) -> None:
        await self.floor.tree_at(head_id)
        await self.store.redo(self.chat.owner, self.chat.story_id)

    async def _go(self, passage_id: str | None) -> None:
        await self.store.move_head(self.chat.owner, self.chat.story_id, passage_id)

    async def _reword(self, passage_id: str, text: str) -> None:
        if not text.strip():
            raise PromptError("A passage cannot be edited to nothing; use Undo to take it away.")
        tree = await self.floor.tree()
        passage = tree[passage_id]
        if passage_id in {told.id for told in tree.branch()}:
            await self.store.rewrite(self.chat.owner, self.chat.story_id, {passage_id: text})
            return
        await self.store.add_passage(  # another window has gone elsewhere: no word is lost
            self.chat.owner,
            self.chat.story_id,
            passage.role,
            text,
            parent_id=passage.parent_id,
            model=passage.model,
            move_head=False,
        )
        raise StoryError(
            "The story stands on another branch by now. Your words are kept under Branches, beside "
            "the passage you edited."
        )

    async def _replace(self, sought: Sought, new: str) -> None:
        if len(new) > MAX_SOUGHT:
            raise StoryError(
                f"{len(new):,} characters cannot be put in for others: at most {MAX_SOUGHT} can."
            )
        branch = (await self.floor.tree()).branch()
        # What was made of a long story is in memory until it is stored: the turn lasts till then.
        async with self.floor.studio.aside.turn(self.chat.owner) as run:
            texts, count = await run(_replaced, branch, sought, new)
            await self.store.rewrite(self.chat.owner, self.chat.story_id, texts)
        places = "once" if count == 1 else f"{count:,} times"
        await self.screen.toast(f"Replaced {places}. Undo brings the old words back.", "success")

    async def _take(self, text: str) -> None:
        if not 0 < len(text) <= MAX_TAKEN:
            raise StoryError(f"A word has 1 to {MAX_TAKEN} characters, not {len(text):,}.")
        tree = await self.floor.tree()
        picked = _being_picked(tree)
        if picked is not None:
            await self._grow_picked(picked, picked.text + text)
        else:
            before = tree.branch()
            trailing = before[-1].text[-1:] if before else ""
            await self.store.add_passage(
                self.chat.owner,
                self.chat.story_id,
                "model",
                text[1:] if trailing in (" ", "\t") and text[0] == " " else text,
                model=self.chat.choices.model,
                params={PICKED: True},
                state="streaming",
            )
        await self.screen.show((await self.floor.tree()).branch())

    async def _grow_picked(self, picked: Passage, text: str, state: Any = "streaming") -> None:
        grown = await self.store.grow_passage(
            self.chat.owner, picked.id, text, state=state, finish_reason=PICKED
        )
        if picked.id in self.screen.shown:
            await self.screen.finish(grown)

    async def _again(self, passage_id: str) -> None:
        tree = await self.floor.tree()
        passage = tree.origin(passage_id)
        if passage.role != "model" or not passage.params or "seed" not in passage.params:
            raise StoryError("Only a passage that a model wrote in one go can be written again.")
        branch = tree.branch(passage.parent_id) if passage.parent_id else []
        names = {field.name for field in fields(SamplingParams)}
        params = SamplingParams(**{k: v for k, v in passage.params.items() if k in names})
        steering = from_json(passage.params.get("steering", {}))
        draft = Draft(passage.model or "", params, steering)
        if self.floor.is_called_off:
            return
        text = await self.author.text_of(draft, _known(branch))
        if passage.finish_reason in ("cancelled", "error", INTERRUPTED):
            text = text[: len(passage.text)]  # it was stopped before its end
        if is_same := text == passage.text:
            await self.screen.toast("Written again, word for word the same.", "success")
        else:
            added = await self.store.add_passage(
                self.chat.owner,
                self.chat.story_id,
                "model",
                text,
                parent_id=passage.parent_id,
                model=draft.model,
                params=draft.settings,
                move_head=False,
            )
            await self.screen.toast(
                "It came out differently: the model has changed since. The new words are kept "
                "beside the old as another version.",
                "warning",
            )
            passage_id = added.id
        await self.screen.tell(again={"id": passage_id, "same": is_same})

    async def _name(self, title: str) -> None:
        if not title.strip():
            raise StoryError("A title needs words: /title The Lighthouse Murders.")
        model = self.floor.studio.model(self.chat.owner, self.chat.choices.model)
        if not model.prompt_template:
            raise StoryError(
                f"{model.display_name} does not begin with a title. Write the title as the first "
                "line of the story instead."
            )
        if not self.chat.is_stored:
            await self.store.create_story(self.chat.owner, **self._new_story(title))
            await self._opened(title)
        await self.floor.studio.steer(self.chat.owner, self.chat.story_id, {"title": title})
        if not (await self.floor.tree()).branch():
            await self._continue(_known([]))

    async def _continue(self, tell: Tell, draft: Draft | None = None) -> None:
        """Let the model continue the branch that is told, unless the writer has gone on or pressed
        Stop."""
        draft = draft or await self._draft()
        if self.floor.is_called_off:
            await tell()
            return
        await self.author.write([draft], tell)
        await self._remark(draft)

    async def _draft(self, params: SamplingParams | None = None, version: int = 0) -> Draft:
        """A draft of the chosen model, steered as the story says."""
        choices, steering = self.chat.choices, await self._steering()
        params = params or choices.params
        params = replace(params, seed=drawn_seed(params.seed, version))
        return Draft(choices.model, steered(params, steering), steering)

    async def _steering(self) -> Steering:
        if not self.chat.is_stored:
            return NO_STEERING
        story = await self.store.story(self.chat.owner, self.chat.story_id)
        return steering_of(story.settings)

    async def _remark(self, draft: Draft) -> None:
        """Say what the writer should know of this passage, quietly."""
        if draft.finish_reason == "loop":
            await self.screen.notice(
                "The passage began to repeat itself and was ended. Undo takes it back; Retry "
                "warmer writes it anew with a higher temperature."
            )
        elif draft.finish_reason == "time":
            await self.screen.notice(
                "The passage took as long as one may here and was ended. Continue goes on from its "
                "last word."
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

    def _new_story(self, text: str) -> dict[str, Any]:
        """What a story is made of that begins with this text."""
        settings = self.chat.choices.as_settings()
        return {"story_id": self.chat.story_id, "title": _title(text), "settings": settings}

    async def _opened(self, text: str) -> None:
        """The story exists from its first message on, and is in the list from then."""
        self.chat.is_stored = True
        await self.screen.opened(_title(text))

    async def _catch_up(self, redraw: bool) -> None:
        branch = (await self.floor.tree()).branch()
        if redraw:
            await self.screen.redraw(branch)
        if branch and branch[-1].finish_reason == INTERRUPTED:
            await self.screen.notice(
                "This passage was cut off when storygen ended. Continue goes on from its last word."
            )


def _being_picked(tree: StoryTree) -> Passage | None:
    """The passage at the end that words of the fan are added to, if there is one."""
    if tree.head_id is None:
        return None
    head = tree[tree.head_id]
    return head if head.state == "streaming" and head.is_picked else None


def _known(branch: Sequence[Passage]) -> Tell:
    """A branch that needs no telling."""

    async def told() -> Sequence[Passage]:
        return branch

    return told


def _replaced(branch: Sequence[Passage], sought: Sought, new: str) -> tuple[dict[str, str], int]:
    """The texts with what is sought worded anew, and in how many places. What would be too long
    is refused before any of it is made."""
    changed, places, whole = list[Passage](), 0, 0
    for passage in branch:
        count, length = sought.measured(passage.text, new)
        if length > MAX_TEXT:
            raise StoryError(
                f"The passage that begins {passage.text[:40]!r} would have {length:,} characters: "
                f"at most {MAX_TEXT:,} can be stored. Put something shorter in, or look for "
                "something rarer."
            )
        if count:
            changed.append(passage)
            places, whole = places + count, whole + length
    if whole > MAX_REPLACED:
        raise StoryError(
            f"The {len(changed):,} passages in which this stands would have {whole:,} characters "
            f"together: at most {MAX_REPLACED:,} can be worded anew at once. Put something shorter "
            "in, or look for something rarer."
        )
    return {passage.id: sought.replaced(passage.text, new) for passage in changed}, places


def _title(text: str) -> str:
    """The first words of a story, until the writer names it."""
    words = " ".join(text.split())
    if len(words) <= TITLE_LENGTH:
        return words
    cut = words[: TITLE_LENGTH - 1]
    return (cut.rpartition(" ")[0] or cut) + "…"
