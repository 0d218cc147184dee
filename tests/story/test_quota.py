"""Each user's room: counted, held to, and never at the cost of what is kept."""

import asyncio
import inspect
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeAlias
from unittest.mock import AsyncMock

import pytest
import sqlalchemy as sa

from storygen.errors import DatabaseError, StoryError
from storygen.story import quota
from storygen.story import store as store_module
from storygen.story.quota import PASSAGE, size_of, size_of_story
from storygen.story.rows import MAX_NAME, MAX_TITLE
from storygen.story.schema import metadata
from storygen.story.store import StoryStore
from storygen.story.tree import Passage, Story

ME, YOU = "me", "you"
LIMIT = 100_000
NEW = "00000000-0000-4000-8000-000000000001"
LONG_NAME, LONG_TITLE = "\U0001f600" * MAX_NAME, "\U0001f600" * MAX_TITLE
NOW = datetime(2026, 1, 1, tzinfo=UTC)

Way: TypeAlias = Callable[[StoryStore, Story], Awaitable[object]]


@pytest.fixture
async def store(url: str) -> AsyncIterator[StoryStore]:
    store = await StoryStore.open(url, LIMIT)
    yield store
    await store.close()


async def add(store: StoryStore, size: int, owner: str = ME) -> str:
    """A story with a passage of so many bytes."""
    passages = [Passage("1", "", None, "writer", "x" * size, NOW)]
    story = await store.add_story(owner, title="", settings={}, passages=passages, head_id="1")
    return story.id


async def measured(store: StoryStore) -> int:
    return sum(size for size, *_ in await store._quota._sizes(ME))


async def test_each_user_has_room_and_no_more(store: StoryStore) -> None:
    kept = await add(store, 60_000)
    sentence = (
        r"^Your stories take 0\.1 of the 0\.1 MB that each writer has here, and this would add "
        r"0\.1: nothing was added\. .* \(STORYGEN_STORAGE_MB\)\.$"
    )
    with pytest.raises(StoryError, match=sentence):
        await add(store, 60_000)
    assert [story.id for story in await store.stories(ME)] == [kept]
    await add(store, 60_000, YOU)
    await add(store, 30_000)


ADDING: dict[str, Way] = {
    "add_passage": lambda store, at: store.add_passage(ME, at.id, "writer", "x", params={}),
    "add_story": lambda store, _: store.add_story(
        ME, title="", settings={"note": "x"}, passages=[], head_id=None
    ),
    "add_writing": lambda store, at: store.add_writing(ME, at.id, ["x", "y"], passage_id=NEW),
    "begin_story": lambda store, _: store.begin_story(
        ME, story_id=NEW, title="", settings={"note": "x"}, texts=["x"], passage_id=NEW
    ),
    "change_settings": lambda store, at: store.change_settings(ME, at.id, lambda _: {"note": "é"}),
    "create_story": lambda store, _: store.create_story(ME, settings={"note": "x"}),
    "move_head": lambda store, at: store.move_head(ME, at.id, None),
    "rewrite": lambda store, at: store.rewrite(ME, at.id, {at.head_id or "": "Other words."}),
    "update_settings": lambda store, at: store.update_settings(ME, at.id, {"note": "é"}),
}


async def _mark(store: StoryStore, at: Story) -> None:
    await store.mark(ME, at.id, at.head_id or "", name=LONG_NAME, favourite=True)


async def _delete_and_restore(store: StoryStore, at: Story) -> None:
    await store.delete_story(ME, at.id)
    await store.restore_story(ME, at.id)


async def _undo_and_redo(store: StoryStore, at: Story) -> None:
    await store.undo(ME, at.id)
    await store.redo(ME, at.id)


FREE: dict[str, Way] = {
    "archive": lambda store, at: store.archive(ME, at.id, archived=False),
    "can_redo": lambda store, at: store.can_redo(ME, at.id),
    "delete_story": _delete_and_restore,
    "mark": _mark,
    "redo": _undo_and_redo,
    "rename": lambda store, at: store.rename(ME, at.id, LONG_TITLE),
    "restore_story": _delete_and_restore,
    "stories": lambda store, _: store.stories(ME),
    "story": lambda store, at: store.story(ME, at.id),
    "titles": lambda store, _: store.titles(ME),
    "tree": lambda store, at: store.tree(ME, at.id),
    "undo": _undo_and_redo,
}
# What a model writes has its own test, and an owner does neither of the others.
APART = {"grow_passage", "open", "close"}
METHODS = {
    name
    for name, _ in inspect.getmembers(StoryStore, inspect.iscoroutinefunction)
    if not name.startswith("_")
}


@pytest.mark.parametrize("name", sorted(METHODS - FREE.keys() - APART))
async def test_every_way_to_add_is_counted(store: StoryStore, name: str) -> None:
    story = await store.story(ME, await add(store, 20_000))
    store._quota._limit = await measured(store)
    with pytest.raises(StoryError, match="nothing was added"):
        await ADDING[name](store, story)
    assert await store.stories(ME) == [story]
    assert [len(passage.text) for passage in await store.tree(ME, story.id)] == [20_000]
    store._quota._limit = LIMIT
    await ADDING[name](store, story)
    assert await measured(store) == store._quota._accounts[ME].used


@pytest.mark.parametrize("name", sorted(FREE))
async def test_what_needs_no_room_adds_nothing_however_often(store: StoryStore, name: str) -> None:
    """Undo, for one, where there is no room for a move of the head."""
    story = await store.story(ME, await add(store, 20_000))
    store._quota._limit = await measured(store)
    await FREE[name](store, story)
    stored = await stored_in(store)
    for _ in range(3):
        await FREE[name](store, story)
    assert await stored_in(store) == stored


async def stored_in(store: StoryStore) -> int:
    """Bytes of all texts in the database, ids among them."""
    async with store.database.read() as connection:
        tables = [await connection.execute(sa.select(table)) for table in metadata.sorted_tables]
        return sum(len(str(value).encode()) for table in tables for row in table for value in row)


async def test_no_less_is_measured_than_is_stored(store: StoryStore) -> None:
    story_id = await add(store, 1)
    for n in range(10):
        text = ("\0\ud800天"[n % 3]) * n
        told = await store.add_passage(ME, story_id, "writer", text, model="fantasy")
        await store.mark(ME, story_id, told.id, name=LONG_NAME)
        await store.move_head(ME, story_id, None)
        await store.rename(ME, story_id, LONG_TITLE)
    assert await stored_in(store) <= await measured(store) <= store._quota._accounts[ME].used


async def test_who_has_too_much_may_still_make_it_less(store: StoryStore) -> None:
    story_id = await add(store, 1)
    await store.update_settings(ME, story_id, {"note": "x" * 10_000})
    store._quota._limit = await measured(store) - 5_000
    for size in (9_000, 1_000):
        await store.update_settings(ME, story_id, {"note": "x" * size})
        assert await measured(store) == store._quota._accounts[ME].used
    await store.update_settings(ME, story_id, {"note": "x" * 5_000})
    with pytest.raises(StoryError, match="nothing was added"):
        await store.update_settings(ME, story_id, {"note": "x" * 5_001})


async def test_settings_that_others_change_meanwhile_are_changed_anew(store: StoryStore) -> None:
    story_id = await add(store, 1)

    def more(before: dict[str, Any]) -> dict[str, Any]:
        return {"notes": [*before.get("notes", []), "x" * 1_000]}

    changes = [store.change_settings(ME, story_id, more) for _ in range(8)]
    await asyncio.gather(*changes)
    assert len((await store.story(ME, story_id)).settings["notes"]) == 8
    assert await measured(store) == store._quota._accounts[ME].used


async def test_what_a_model_writes_is_never_cut_but_counts(store: StoryStore) -> None:
    story_id = await add(store, 60_000)
    begun = await store.add_passage(ME, story_id, "model", "", state="streaming")
    grown = await store.grow_passage(ME, begun.id, "y" * 60_000, state="complete")
    assert len(grown.text) == 60_000
    with pytest.raises(StoryError, match="nothing was added"):
        await store.add_passage(ME, story_id, "writer", "z")


async def test_what_was_deleted_gives_way_the_oldest_first(store: StoryStore) -> None:
    first, second, kept = [await add(store, 28_000) for _ in range(3)]
    for story_id in (first, second):
        await store.delete_story(ME, story_id)
    await add(store, 30_000)
    assert [story.id for story in await store.stories(ME, deleted=True)] == [second]
    assert kept in [story.id for story in await store.stories(ME)]


async def test_nothing_is_purged_for_what_would_not_fit_even_so(store: StoryStore) -> None:
    deleted, _ = await add(store, 30_000), await add(store, 50_000)
    await store.delete_story(ME, deleted)
    with pytest.raises(StoryError, match="nothing was added"):
        await add(store, 60_000)
    await store.restore_story(ME, deleted)


async def test_a_refusal_is_remembered_until_something_is_deleted(
    store: StoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All texts of who had no room were measured at each request."""
    monkeypatch.setattr(quota, "REFUSED_FOR", math.inf)
    first, _ = await add(store, 40_000), await add(store, 40_000)
    sizes = AsyncMock(wraps=store._quota._sizes)
    monkeypatch.setattr(store._quota, "_sizes", sizes)
    for _ in range(5):
        with pytest.raises(StoryError, match=r"take 0\.1 of .* nothing was added"):
            await add(store, 40_000)
    assert sizes.await_count == 1
    await add(store, 1_000)  # what is smaller has room
    await store.delete_story(ME, first)
    await add(store, 40_000)
    assert len(await store.stories(ME)) == 3
    assert sizes.await_count == 2
    monkeypatch.setattr(quota, "REFUSED_FOR", 0)
    for _ in range(2):
        with pytest.raises(StoryError, match="nothing was added"):
            await add(store, 60_000)
    assert sizes.await_count == 4


async def test_what_is_measured_is_what_was_counted(store: StoryStore) -> None:
    text, params = "天é\U0001f600 x" * 50, {"a": [1, 2.5], "é": None}
    passages = [Passage(str(n), "", None, "model", text, NOW, params=params) for n in range(20)]
    await store.add_story(ME, title="", settings={}, passages=passages, head_id=None)
    rows = [{"text": p.text, "params": p.params} for p in passages]
    worked_out = 20 * (PASSAGE + 50 * 11 + len('{"a": [1, 2.5], "\\u00e9": null}'))
    assert size_of(rows) == worked_out
    counted = store._quota._accounts[ME].used
    assert await measured(store) == counted == size_of_story("{}") + worked_out


async def test_requests_at_once_have_no_more_room_than_one_after_another(
    store: StoryStore,
) -> None:
    """Of twelve stories three fit, though each finds the account unmeasured or too small."""
    asked = [add(store, 28_000) for _ in range(12)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, StoryError)]
    assert len(await store.stories(ME)) == 3
    assert len(refused) == 9
    assert await measured(store) == store._quota._accounts[ME].used <= LIMIT


async def test_what_is_being_stored_is_neither_missed_nor_counted_twice(
    store: StoryStore,
) -> None:
    """Whoever has to be measured waits for what was let in, and then has all the room left."""
    await add(store, 20_000)
    let_in = asyncio.Event()
    stored = asyncio.Event()
    add_whole = store_module.add_whole

    async def slowly(*args: Any) -> Any:
        let_in.set()
        await stored.wait()
        return await add_whole(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "add_whole", slowly)
        first = asyncio.create_task(add(store, 35_000))
        await let_in.wait()
    store._quota._accounts[ME].measured_at = -math.inf
    others = [asyncio.create_task(add(store, 30_000)) for _ in range(2)]
    for _ in range(100):
        await asyncio.sleep(0)
    assert not any(other.done() for other in others)
    stored.set()
    await first
    done = await asyncio.gather(*others, return_exceptions=True)
    (refused,) = [answer for answer in done if isinstance(answer, StoryError)]
    assert "nothing was added" in str(refused)
    assert await measured(store) == store._quota._accounts[ME].used


async def test_what_was_refused_or_broke_off_takes_no_room(store: StoryStore) -> None:
    story_id = await add(store, 20_000)
    before = store._quota._accounts[ME].used
    with pytest.raises(StoryError, match="There is no passage"):
        await store.add_passage(ME, story_id, "writer", "x" * 50_000, parent_id="none")
    assert store._quota._accounts[ME].used == before
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "add_whole", AsyncMock(side_effect=DatabaseError("Away.")))
        with pytest.raises(DatabaseError):
            await add(store, 50_000)
    await add(store, 60_000)
    assert await measured(store) == store._quota._accounts[ME].used


async def test_what_a_model_writes_while_one_is_measured_counts(store: StoryStore) -> None:
    story_id = await add(store, 20_000)
    begun = await store.add_passage(ME, story_id, "model", "", state="streaming")
    account, sizes = store._quota._accounts[ME], store._quota._sizes

    async def written_meanwhile(owner: str) -> Any:
        found = await sizes(owner)
        await store.grow_passage(ME, begun.id, "é" * 30_000, state="complete")
        return found

    account.measured_at = -math.inf
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store._quota, "_sizes", written_meanwhile)
        await store.add_passage(ME, story_id, "writer", "x")
    assert await measured(store) == account.used


async def test_what_is_restored_while_room_is_made_keeps_its_own(store: StoryStore) -> None:
    deleted = await add(store, 60_000)
    await store.delete_story(ME, deleted)
    sizes = store._quota._sizes

    async def restored_meanwhile(owner: str) -> Any:
        found = await sizes(owner)
        await store.restore_story(ME, deleted)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store._quota, "_sizes", restored_meanwhile)
        with pytest.raises(StoryError, match="nothing was added"):
            await add(store, 60_000)
    assert len((await store.tree(ME, deleted)).branch()) == 1
    assert len(await store.stories(ME)) == 1


async def test_without_a_limit_nothing_is_measured(url: str) -> None:
    store = await StoryStore.open(url)
    await add(store, 2_000_000)
    assert store._quota._accounts == {}
    await store.close()
