"""Many passages at once: in small pieces, and seen as one."""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from storygen.errors import DatabaseError, StoryError
from storygen.story import copies, purge, statements
from storygen.story.copies import batches
from storygen.story.purge import purge_copies
from storygen.story.schema import IS_HIDDEN
from storygen.story.schema import passages as passages_table
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


async def hidden_rows(store: StoryStore) -> int:
    """How many copies hide those that follow them."""
    async with store.database.read() as connection:
        query = sa.select(sa.func.count()).select_from(passages_table).where(IS_HIDDEN)
        return (await connection.execute(query)).scalar_one()


def until(change: Callable[[], Any], steps: int) -> Callable[[], Any]:
    """So many changes, and none after them."""
    left = iter(range(steps))

    def changes() -> Any:
        if next(left, None) is None:
            raise DatabaseError("The power is cut.")
        return change()

    return changes


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


async def test_others_write_while_a_long_branch_is_copied_and_nobody_sees_half_of_it(
    store: StoryStore,
) -> None:
    """Rewording the first of 100,000 passages kept every other writer waiting for 7.2 s."""
    other, story = await store.create_story(YOU), await add(store, 60)
    old = (await store.tree(ME, story.id)).branch()
    rewording = asyncio.create_task(store.rewrite(ME, story.id, {old[0].id: "New."}))
    seen: set[tuple[int, int, int, str]] = set()

    async def write() -> None:
        while not rewording.done():
            await store.add_passage(YOU, other.id, "writer", "x")

    writing = asyncio.create_task(write())
    while not rewording.done():
        (listed,) = await store.stories(ME)
        tree = await store.tree(ME, story.id)
        seen.add((listed.passage_count, len(list(tree)), len(tree.marks), tree.branch()[0].text))
        await purge_copies(store.growing)  # what is at work is let be
    await writing
    assert len((await store.tree(YOU, other.id)).branch()) >= 10
    assert {(count, marks, text) for count, _, marks, text in seen} <= {
        (60, 60, "Word 0."),
        (60, 120, "New."),  # listed before it was done, and read after it
        (120, 120, "New."),
    }
    assert {passages for _, passages, _, _ in seen} <= {60, 120}
    assert (await rewording).passage_count == 120
    tree = await store.tree(ME, story.id)
    assert [p.text for p in tree.branch()] == ["New.", *(p.text for p in line(60)[1:])]
    assert {mark.name for mark in tree.marks.values()} == {p.text for p in line(60)}


async def test_what_another_window_adds_while_a_branch_is_copied_is_kept(
    store: StoryStore, url: str
) -> None:
    story = await add(store, 30)
    first = (await store.tree(ME, story.id)).branch()[0]
    rewording = asyncio.create_task(store.rewrite(ME, story.id, {first.id: "New."}))
    while await hidden_rows(store) == 0:
        pass
    added = await store.add_passage(ME, story.id, "writer", "Meanwhile.")
    assert not rewording.done()
    assert (await store.tree(ME, story.id)).branch()[-1] == added
    assert (await rewording).passage_count == 61
    tree = await store.tree(ME, story.id)
    assert [p.text for p in tree.branch()] == ["New.", *(p.text for p in line(30)[1:])]
    undone = await store.undo(ME, story.id)
    assert undone.head_id == added.id
    told = (await store.tree(ME, story.id)).branch()
    assert [p.text for p in told] == [*(p.text for p in line(30)), "Meanwhile."]
    await store.close()
    again = await StoryStore.open(url)
    assert list(await again.tree(ME, story.id)) == list(tree)
    await again.close()


@pytest.mark.parametrize("steps", [1, 2, 3])
async def test_what_was_not_copied_whole_is_never_seen_and_goes(
    store: StoryStore, url: str, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    story = await add(store, 10)
    before = await store.tree(ME, story.id)
    with monkeypatch.context() as patch:
        patch.setattr(store.growing, "change", until(store.growing.change, steps))
        with pytest.raises(DatabaseError):
            await store.rewrite(ME, story.id, {before.branch()[0].id: "New."})
    await store.close()
    store = await StoryStore.open(url)
    assert await hidden_rows(store) == 1
    tree = await store.tree(ME, story.id)
    assert (list(tree), tree.marks) == (list(before), before.marks)
    added = [await store.add_passage(ME, story.id, "writer", text) for text in ("x", "y")]
    await store.mark(ME, story.id, added[0].id, favourite=True)
    tree = await store.tree(ME, story.id)
    assert tree.branch() == [*before.branch(), *added]
    with monkeypatch.context() as patch:  # cut off in between, it is finished by the next
        patch.setattr(purge, "BATCH", 2)
        patch.setattr(store.growing, "change", until(store.growing.change, 1))
        with contextlib.suppress(DatabaseError):
            await purge_copies(store.growing)
    await purge_copies(store.growing)
    assert await hidden_rows(store) == 0
    async with store.database.read() as connection:
        count = sa.select(sa.func.count()).select_from(passages_table)
        assert (await connection.execute(count)).scalar_one() == 12
    again = await store.tree(ME, story.id)
    assert (list(again), again.marks) == (list(tree), tree.marks)
    await store.rewrite(ME, story.id, {added[0].id: "New."})
    assert [p.text for p in (await store.tree(ME, story.id)).branch()[-2:]] == ["New.", "y"]
    assert (await store.story(ME, story.id)).passage_count == 14
    await store.close()


async def test_what_another_program_copies_is_let_be_until_that_ends(postgresql_url: str) -> None:
    one, other = [await StoryStore.open(postgresql_url) for _ in range(2)]
    story = await add(one, 30)
    first = (await one.tree(ME, story.id)).branch()[0]
    rewording = asyncio.create_task(one.rewrite(ME, story.id, {first.id: "New."}))
    while await hidden_rows(other) == 0:
        pass
    await purge_copies(other.growing)
    assert not rewording.done()
    assert (await rewording).passage_count == 60
    assert (await other.tree(ME, story.id)).branch()[0].text == "New."
    for store in (one, other):
        await store.close()


async def test_copies_that_nobody_sees_are_found_by_an_index(sqlite_url: str) -> None:
    """They are looked for from time to time, among all that anybody ever wrote."""
    store = await StoryStore.open(sqlite_url)
    query = sa.select(passages_table.c.id).where(IS_HIDDEN)
    async with store.database.read() as connection:
        plan = await connection.exec_driver_sql(f"explain query plan {query}")
        assert "ix_passages_hidden" in str(plan.all())
    await store.close()


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
