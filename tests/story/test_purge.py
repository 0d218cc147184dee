"""Deleted stories: there for some days, then gone with all that was theirs and nothing else."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from storygen.errors import DatabaseError, StoryError
from storygen.story import purge
from storygen.story.purge import purge_old
from storygen.story.schema import head_moves, marks, passages, stories
from storygen.story.statements import UNFINISHED
from storygen.story.store import StoryStore

ME, YOU = "me", "you"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A story of eight passages is a long one."""
    monkeypatch.setattr(purge, "BATCH", 3)


async def told(store: StoryStore, owner: str) -> str:
    """A story of two branches, with marks, edits and moves."""
    story = await store.create_story(owner, title="Fog")
    ids = [(await store.add_passage(owner, story.id, "writer", f"{n}.")).id for n in range(4)]
    await store.mark(owner, story.id, ids[1], name="wet")
    await store.rewrite(owner, story.id, {ids[1]: "New."})
    await store.undo(owner, story.id)
    await store.add_passage(owner, story.id, "writer", "Elsewhere.", parent_id=ids[0])
    return story.id


async def delete(store: StoryStore, owner: str, story_id: str, days: float) -> None:
    """Delete a story so many days ago."""
    await store.delete_story(owner, story_id)
    await changed(store, story_id, deleted_at=datetime.now(UTC) - timedelta(days=days))


async def changed(store: StoryStore, story_id: str, **values: object) -> None:
    async with store.database.write() as connection:
        await connection.execute(stories.update().where(stories.c.id == story_id).values(**values))


async def rows_of(store: StoryStore, story_id: str) -> list[int]:
    counts = []
    async with store.database.read() as connection:
        for column in (
            stories.c.id,
            *(table.c.story_id for table in (passages, head_moves, marks)),
        ):
            query = sa.select(sa.func.count()).where(column == story_id)
            counts.append((await connection.execute(query)).scalar_one())
    return counts


async def test_what_was_deleted_long_ago_is_gone_and_all_else_is_as_it_was(
    store: StoryStore,
) -> None:
    old, recent, kept, yours = [await told(store, owner) for owner in (ME, ME, ME, YOU)]
    whole = await rows_of(store, kept)
    assert whole[1] > 2 * purge.BATCH
    await delete(store, ME, old, 31)
    await delete(store, ME, recent, 29)
    assert await purge_old(store.growing, 30) == 1
    assert await rows_of(store, old) == [0, 0, 0, 0]
    for story_id in (recent, kept, yours):
        assert await rows_of(store, story_id) == whole
    with pytest.raises(StoryError, match="There is no story"):
        await store.restore_story(ME, old)
    assert (await store.restore_story(ME, recent)).title == "Fog"
    assert len((await store.tree(YOU, yours)).branch()) == 2


async def test_days_of_0_keep_it_for_ever(store: StoryStore) -> None:
    old = await told(store, ME)
    await delete(store, ME, old, 36_000)
    assert await purge_old(store.growing, 0) == 0
    await store.restore_story(ME, old)


async def test_what_was_never_whole_goes_whatever_is_set(store: StoryStore) -> None:
    half, adding = await told(store, ME), await told(store, ME)
    await delete(store, ME, half, 2)
    await delete(store, ME, adding, 0)
    for story_id in (half, adding):
        await changed(store, story_id, head_number=UNFINISHED)
    assert await purge_old(store.growing, 0) == 1
    assert await rows_of(store, half) == [0, 0, 0, 0]
    assert (await rows_of(store, adding))[0] == 1


async def test_a_restored_story_is_not_purged_and_a_kept_one_never(store: StoryStore) -> None:
    kept = await told(store, ME)
    whole = await rows_of(store, kept)
    await purge.purge(store.growing.change, ME, kept)
    await purge.purge(store.growing.change, YOU, kept)
    assert await rows_of(store, kept) == whole


@pytest.mark.parametrize("steps", [1, 3, 4, 5])
async def test_half_a_purge_is_seen_by_nobody_and_is_finished(
    store: StoryStore, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    old = await told(store, ME)
    await delete(store, ME, old, 31)
    left = iter(range(steps))
    change = store.growing.change

    def changes_until() -> Any:
        if next(left, None) is None:
            raise DatabaseError("The power is cut.")
        return change()

    with monkeypatch.context() as patch:
        patch.setattr(store.growing, "change", changes_until)
        with pytest.raises(DatabaseError):
            await purge_old(store.growing, 30)
    with pytest.raises(StoryError, match="There is no story"):
        await store.restore_story(ME, old)
    assert await store.stories(ME, deleted=True) == []
    assert await purge_old(store.growing, 0) == 1
    assert await rows_of(store, old) == [0, 0, 0, 0]


async def test_what_follows_a_passage_is_found_by_an_index(sqlite_url: str) -> None:
    """Without one, each passage that goes is looked for among all of its story."""
    store = await StoryStore.open(sqlite_url)
    async with store.database.read() as connection:
        plan = await connection.exec_driver_sql(
            "explain query plan select 1 from passages where story_id = 'a' and parent_id = 'b'"
        )
        assert "ix_passages_story_id_parent_id (story_id=? AND parent_id=?)" in str(plan.all())
    await store.close()
