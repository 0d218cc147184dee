"""The store against a model of it in memory: whatever is done in whatever order, both agree."""

import asyncio
import itertools
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from storygen.errors import StoryError
from storygen.story.growing import INTERRUPTED
from storygen.story.statements import HEAD
from storygen.story.store import StoryStore

TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), max_size=8
)  # PostgreSQL: no NUL
OWNERS = st.sampled_from(["ann", "ben"])
PICK = st.integers(min_value=0)  # which of what there is


@dataclass
class ModelStory:
    """What a story must be: its passages in order, and every place the head has been."""

    owner: str
    passages: dict[str, list[object]] = field(default_factory=dict)  # id: parent, text, state, end
    line: list[str | None] = field(default_factory=lambda: [None])
    at: int = 0
    title: str = ""
    deleted: bool = False

    @property
    def head(self) -> str | None:
        return self.line[self.at]

    def move(self, passage_id: str | None) -> None:
        self.line[self.at + 1 :] = [passage_id]
        self.at += 1

    def branch(self) -> list[str]:
        path, here = [], self.head
        while here is not None:
            path.append(here)
            here = self.passages[here][0]
        return path[::-1]


class StoreMachine(RuleBasedStateMachine):
    """Every rule does one thing to the store and to the model and compares what they hold."""

    url: str
    names = itertools.count()

    @initialize()
    def open(self) -> None:
        self.runner = asyncio.Runner()
        self.store = self.run(StoryStore.open(self.url))
        self.example = f"{next(self.names)}"  # owners of its own for each example
        self.stories: dict[str, ModelStory] = {}

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.run(self.store.close())
            self.runner.close()

    def run(self, call: Any) -> Any:
        return self.runner.run(call)

    def owner(self, name: str) -> str:
        return f"{name} {self.example}"

    def pick(self, number: int) -> tuple[str, ModelStory]:
        return list(self.stories.items())[number % len(self.stories)]

    def passage(self, story: ModelStory, number: int) -> str | None:
        """One of the story's passages, or the beginning."""
        return [None, *story.passages][number % (len(story.passages) + 1)]

    def refused(self, call: Awaitable[object]) -> None:
        with pytest.raises(StoryError):
            self.run(call)

    def compare(self, story_id: str) -> None:
        model = self.stories[story_id]
        if model.deleted:
            self.refused(self.store.tree(model.owner, story_id))
            return
        tree = self.run(self.store.tree(model.owner, story_id))
        assert tree.head_id == model.head
        assert [passage.id for passage in tree.branch()] == model.branch()
        can_redo = self.run(self.store.can_redo(model.owner, story_id))
        assert can_redo == (model.at + 1 < len(model.line))
        found = {p.id: [p.parent_id, p.text, p.state, p.finish_reason] for p in tree}
        assert list(found.items()) == list(model.passages.items())

    @rule(name=OWNERS, title=TEXT)
    def create(self, name: str, title: str) -> None:
        story = self.run(self.store.create_story(self.owner(name), title=title))
        self.stories[story.id] = ModelStory(self.owner(name), title=story.title)
        self.compare(story.id)

    @rule(name=OWNERS, texts=st.lists(TEXT, min_size=1, max_size=3))
    def begin(self, name: str, texts: list[str]) -> None:
        story_id, last = str(uuid4()), str(uuid4())
        told = self.run(
            self.store.begin_story(
                self.owner(name),
                story_id=story_id,
                title="",
                settings={},
                texts=texts,
                passage_id=last,
            )
        )
        assert list(self.run(self.store.tree(self.owner(name), story_id))) == told
        passages = {p.id: [p.parent_id, p.text, p.state, p.finish_reason] for p in told}
        assert [p.text for p in told] == texts
        self.stories[story_id] = ModelStory(self.owner(name), passages, [None, last], 1, title="")
        self.compare(story_id)

    @precondition(lambda self: self.stories)
    @rule(which=PICK, texts=st.lists(TEXT, min_size=1, max_size=3))
    def write_on(self, which: int, texts: list[str]) -> None:
        story_id, model = self.pick(which)
        call = self.store.add_writing(model.owner, story_id, texts, passage_id=str(uuid4()))
        if model.deleted:
            self.refused(call)
        else:
            head = model.head
            for told, text in zip(self.run(call), texts, strict=True):
                assert (told.parent_id, told.text) == (head, text)
                model.passages[told.id] = [head, text, told.state, told.finish_reason]
                head = told.id
            model.move(head)
        self.compare(story_id)

    @precondition(lambda self: self.stories)
    @rule(which=PICK, text=TEXT, after=PICK | st.just(HEAD), streaming=st.booleans())
    def add(self, which: int, text: str, after: Any, streaming: bool) -> None:
        story_id, model = self.pick(which)
        parent = HEAD if after == HEAD else self.passage(model, after)
        state = "streaming" if streaming else "complete"
        call = self.store.add_passage(
            model.owner, story_id, "model", text, parent_id=parent, state=state
        )
        if model.deleted:
            self.refused(call)
        else:
            passage = self.run(call)
            at = model.head if parent == HEAD else parent
            model.passages[passage.id] = [at, text, state, None]
            model.move(passage.id)
        self.compare(story_id)

    @precondition(lambda self: any(story.passages for story in self.stories.values()))
    @rule(which=PICK, text=TEXT, end=st.none() | st.sampled_from(["stop", "length"]))
    def grow(self, which: int, text: str, end: str | None) -> None:
        every = [(s, p) for s, story in self.stories.items() for p in story.passages]
        story_id, passage_id = every[which % len(every)]
        model = self.stories[story_id]
        passage = model.passages[passage_id]
        state = "complete" if end else "streaming"
        call = self.store.grow_passage(
            model.owner, passage_id, text, state=state, finish_reason=end
        )
        if passage[2] == "complete":
            self.refused(call)
        else:
            self.run(call)
            passage[1:] = [text, state, end]
        self.compare(story_id)

    @precondition(lambda self: self.stories)
    @rule(which=PICK, to=PICK)
    def move_head(self, which: int, to: int) -> None:
        story_id, model = self.pick(which)
        target = self.passage(model, to)
        call = self.store.move_head(model.owner, story_id, target)
        if model.deleted:
            self.refused(call)
        else:
            assert self.run(call).head_id == target
            if target != model.head:
                model.move(target)
        self.compare(story_id)

    @precondition(lambda self: self.stories)
    @rule(which=PICK, step=st.sampled_from([-1, 1]), times=st.integers(1, 4))
    def undo_or_redo(self, which: int, step: int, times: int) -> None:
        story_id, model = self.pick(which)
        for _ in range(times):
            call = (self.store.undo if step < 0 else self.store.redo)(model.owner, story_id)
            if model.deleted or not 0 <= model.at + step < len(model.line):
                self.refused(call)
            else:
                model.at += step
                assert self.run(call).head_id == model.head
        self.compare(story_id)

    @precondition(lambda self: self.stories)
    @rule(which=PICK, at=PICK, texts=st.lists(TEXT, min_size=1, max_size=3))
    def rewrite(self, which: int, at: int, texts: list[str]) -> None:
        """Some passages in a row are worded anew; the old words stay where they were."""
        story_id, model = self.pick(which)
        branch = model.branch()
        named = branch[at % (len(branch) + 1) :]
        new = dict(zip(named, texts, strict=False))
        is_new = [model.passages[id][1] != new.get(id, model.passages[id][1]) for id in branch]
        call = self.store.rewrite(model.owner, story_id, new)
        if model.deleted or (any(is_new) and model.passages[branch[-1]][2] == "streaming"):
            self.refused(call)
        elif any(is_new):
            head = self.run(call).head_id
            tree = self.run(self.store.tree(model.owner, story_id))
            first = is_new.index(True)
            copies = tree.branch(head)[first:]
            assert [p.source_id for p in copies] == branch[first:]
            for copy, source in zip(copies, branch[first:], strict=True):
                _, text, _, end = model.passages[source]
                model.passages[copy.id] = [copy.parent_id, new.get(source, text), "complete", end]
            model.move(head)
            assert model.branch() == branch[:first] + [p.id for p in copies]
        else:
            assert self.run(call).head_id == model.head
        self.compare(story_id)

    @precondition(lambda self: self.stories)
    @rule(which=PICK)
    def duplicate(self, which: int) -> None:
        story_id, model = self.pick(which)
        if model.deleted:
            return
        tree = self.run(self.store.tree(model.owner, story_id))
        copy = self.run(
            self.store.add_story(
                model.owner,
                title=model.title,
                settings={},
                passages=list(tree),
                head_id=tree.head_id,
            )
        )
        copied = self.run(self.store.tree(model.owner, copy.id))
        assert [p.text for p in copied] == [p.text for p in tree]
        assert [p.text for p in copied.branch()] == [p.text for p in tree.branch()]
        passages = {p.id: [p.parent_id, p.text, p.state, p.finish_reason] for p in copied}
        line = [None, copy.head_id] if copy.head_id else [None]
        self.stories[copy.id] = ModelStory(
            model.owner, passages, line, len(line) - 1, title=copy.title
        )
        self.compare(copy.id)

    @precondition(lambda self: self.stories)
    @rule(which=PICK)
    def delete_or_restore(self, which: int) -> None:
        story_id, model = self.pick(which)
        change = self.store.restore_story if model.deleted else self.store.delete_story
        self.run(change(model.owner, story_id))
        model.deleted = not model.deleted
        self.compare(story_id)

    @precondition(lambda self: self.stories)
    @rule(which=PICK, title=TEXT)
    def rename(self, which: int, title: str) -> None:
        story_id, model = self.pick(which)
        call = self.store.rename(model.owner, story_id, title)
        if model.deleted:
            self.refused(call)
        else:
            self.run(call)
            model.title = title

    @rule(name=OWNERS)
    def list_stories(self, name: str) -> None:
        found = self.run(self.store.stories(self.owner(name)))
        expected = {
            (id, story.title, story.head)
            for id, story in self.stories.items()
            if story.owner == self.owner(name) and not story.deleted
        }
        assert {(story.id, story.title, story.head_id) for story in found} == expected

    @precondition(lambda self: self.stories)
    @rule(which=PICK, at=PICK)
    def meddle(self, which: int, at: int) -> None:
        """Another owner tries everything."""
        story_id, model = self.pick(which)
        other = next(o for n in ("ann", "ben") if (o := self.owner(n)) != model.owner)
        passage_id = self.passage(model, at) or str(uuid4())
        store = self.store
        self.refused(store.add_passage(other, story_id, "writer", "x"))
        self.refused(store.grow_passage(other, passage_id, "x"))
        self.refused(store.move_head(other, story_id, passage_id))
        self.refused(store.undo(other, story_id))
        self.refused(store.redo(other, story_id))
        self.refused(store.restore_story(other, story_id))
        self.refused(store.delete_story(other, story_id))
        self.refused(store.create_story(other, story_id=story_id))
        self.compare(story_id)

    @rule()
    def restart(self) -> None:
        self.run(self.store.close())
        self.store = self.run(StoryStore.open(self.url))
        for story_id, model in self.stories.items():
            for passage in model.passages.values():
                if passage[2] == "streaming":
                    passage[2:] = ["complete", INTERRUPTED]
            self.compare(story_id)


@pytest.mark.parametrize(("url", "share"), [("sqlite", 4), ("postgresql", 10)], indirect=["url"])
def test_the_store_does_what_its_model_does(url: str, share: int) -> None:
    """An example opens the store and takes half a second: a share of the usual number of them."""
    StoreMachine.url = url
    examples = max(1, settings.default.max_examples // share)
    run_state_machine_as_test(
        StoreMachine, settings=settings(max_examples=examples, stateful_step_count=12)
    )
