"""Many passages at once: in small pieces, and seen as one."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storygen.errors import StoryError
from storygen.story import copies, statements
from storygen.story.copies import batches
from storygen.story.store import StoryStore
from storygen.story.tree import Mark, Passage

ME, YOU = "me", "you"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rows count as many."""
    monkeypatch.setattr(copies, "BATCH", 3)
    monkeypatch.setattr(statements, "PAGE", 3)


def line(count: int) -> list[Passage]:
    """A branch."""
    return [
        Passage(str(n), "", str(n - 1) if n else None, "writer", f"Word {n}.", NOW)
        for n in range(count)
    ]


async def add(store: StoryStore, count: int) -> Any:
    passages = line(count)
    marks = {passage.id: Mark(name=passage.text) for passage in passages}
    head_id = passages[-1].id if passages else None
    return await store.add_story(
        ME, title="Long", settings={}, passages=passages, head_id=head_id, marks=marks
    )


@given(st.lists(st.integers(0, copies.BATCH_TEXT * 2), max_size=30), st.integers(1, 5))
def test_rows_come_in_their_order_and_few_at_a_time(sizes: list[int], most: int) -> None:
    class Text(str):
        def __len__(self) -> int:
            return int(self)

    rows = [{"number": n, "text": Text(size)} for n, size in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copies, "BATCH", most)
        found = list(batches(rows))
    assert [row for batch in found for row in batch] == rows
    for batch in found:
        size = sum(len(row["text"]) for row in batch)
        assert 0 < len(batch) <= most
        assert len(batch) == 1 or size <= copies.BATCH_TEXT


@pytest.mark.parametrize("count", [0, 1, 3, 4, 10])
async def test_however_long_a_story_is_it_is_read_as_it_was_added(
    store: StoryStore, count: int
) -> None:
    story = await add(store, count)
    assert story.passage_count == count
    tree = await store.tree(ME, story.id)
    assert [passage.text for passage in tree.branch()] == [p.text for p in line(count)]
    assert {mark.name for mark in tree.marks.values()} == {p.text for p in line(count)}
    if count:
        await store.rewrite(ME, story.id, {tree.branch()[0].id: "New."})
        texts = [p.text for p in (await store.tree(ME, story.id)).branch()]
        assert texts == ["New.", *(p.text for p in line(count)[1:])]
        assert (await store.undo(ME, story.id)).head_id == story.head_id


async def test_others_write_while_a_long_story_is_added_and_nobody_sees_half_of_it(
    store: StoryStore,
) -> None:
    """100,000 passages kept every other writer waiting for 9.6 s."""
    other = await store.create_story(YOU)
    seen: list[int] = []
    adding = asyncio.create_task(add(store, 100))
    while not adding.done():
        await store.add_passage(YOU, other.id, "writer", "x")
        listed = [*await store.stories(ME), *await store.stories(ME, deleted=True)]
        seen += [story.passage_count for story in listed]
    assert len((await store.tree(YOU, other.id)).branch()) >= 10
    assert set(seen) <= {100}
    assert (await adding).passage_count == 100


async def test_what_was_not_added_whole_is_never_seen(store: StoryStore) -> None:
    before = asyncio.create_task(add(store, 1000))
    other = await store.create_story(YOU)
    for _ in range(5):
        await store.add_passage(YOU, other.id, "writer", "x")
    before.cancel()
    with pytest.raises(asyncio.CancelledError):
        await before
    assert await store.stories(ME) == await store.stories(ME, deleted=True) == []
    async with store.database.read() as connection:
        left = (await connection.execute(copies_left())).scalars().all()
    for story_id in left:
        with pytest.raises(StoryError, match="There is no story"):
            await store.restore_story(ME, story_id)


def copies_left() -> Any:
    """The ids of all that is stored of the owner's stories."""
    return statements.sa.select(statements.stories.c.id).where(statements.stories.c.owner == ME)
