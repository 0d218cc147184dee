"""Each user's room: counted, held to, and never at the cost of what is kept."""

import asyncio
import math
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from unittest.mock import AsyncMock

import pytest

from storygen.errors import DatabaseError, StoryError
from storygen.story.quota import ROW, size_of
from storygen.story.store import StoryStore
from storygen.story.tree import Passage

ME, YOU = "me", "you"
LIMIT = 100_000
NOW = datetime(2026, 1, 1, tzinfo=UTC)


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


@pytest.mark.parametrize("how", ["passage", "writing", "beginning", "edit", "settings"])
async def test_every_way_to_add_is_counted(store: StoryStore, how: str) -> None:
    story_id = await add(store, 20_000)
    head = (await store.story(ME, story_id)).head_id
    new = "00000000-0000-4000-8000-000000000001"
    long = "x" * (LIMIT - 10_000)
    ways = {
        "passage": lambda: store.add_passage(ME, story_id, "writer", long),
        "writing": lambda: store.add_writing(ME, story_id, [long], passage_id=new),
        "beginning": lambda: store.begin_story(
            ME, story_id=new, title="", settings={}, texts=[long], passage_id=new
        ),
        "edit": lambda: store.rewrite(ME, story_id, {head: long}),
        "settings": lambda: store.add_story(
            ME, title="", settings={"note": long}, passages=[], head_id=None
        ),
    }
    with pytest.raises(StoryError, match="nothing was added"):
        await ways[how]()
    tree = await store.tree(ME, story_id)
    assert [len(passage.text) for passage in tree] == [20_000]
    assert len(await store.stories(ME)) == 1


async def test_what_a_model_writes_is_never_cut_but_counts(store: StoryStore) -> None:
    story_id = await add(store, 60_000)
    begun = await store.add_passage(ME, story_id, "model", "", state="streaming")
    grown = await store.grow_passage(ME, begun.id, "y" * 60_000, state="complete")
    assert len(grown.text) == 60_000
    with pytest.raises(StoryError, match="nothing was added"):
        await store.add_passage(ME, story_id, "writer", "z")


async def test_what_was_deleted_gives_way_the_oldest_first(store: StoryStore) -> None:
    first, second, kept = [await add(store, 30_000) for _ in range(3)]
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


async def test_what_is_measured_is_what_was_counted(store: StoryStore) -> None:
    text, params = "天é\U0001f600 x" * 50, {"a": [1, 2.5], "é": None}
    passages = [Passage(str(n), "", None, "model", text, NOW, params=params) for n in range(20)]
    await store.add_story(ME, title="", settings={}, passages=passages, head_id=None)
    counted = store._quota._accounts[ME].used
    (measured, _, _), *others = await store._quota._sizes(ME)
    assert others == []
    assert measured == counted
    rows = [{"text": p.text, "params": p.params} for p in passages]
    assert measured == ROW + len("{}") + size_of(rows)


async def measured(store: StoryStore) -> int:
    return sum(size for size, *_ in await store._quota._sizes(ME))


async def test_requests_at_once_have_no_more_room_than_one_after_another(
    store: StoryStore,
) -> None:
    """Of twelve stories three fit, though each finds the account unmeasured or too small."""
    asked = [add(store, 30_000) for _ in range(12)]
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
    add_whole = store._add_whole

    async def slowly(*args: Any) -> Any:
        let_in.set()
        await stored.wait()
        return await add_whole(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_add_whole", slowly)
        first = asyncio.create_task(add(store, 40_000))
        await let_in.wait()
    store._quota._accounts[ME].measured_at = -math.inf
    second = asyncio.create_task(add(store, 30_000))
    third = asyncio.create_task(add(store, 30_000))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not second.done()
    stored.set()
    await asyncio.gather(first, second)
    with pytest.raises(StoryError, match="nothing was added"):
        await third
    assert await measured(store) == store._quota._accounts[ME].used


async def test_what_was_refused_or_broke_off_takes_no_room(store: StoryStore) -> None:
    story_id = await add(store, 20_000)
    before = store._quota._accounts[ME].used
    with pytest.raises(StoryError, match="There is no passage"):
        await store.add_passage(ME, story_id, "writer", "x" * 50_000, parent_id="none")
    assert store._quota._accounts[ME].used == before
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_add_whole", AsyncMock(side_effect=DatabaseError("Away.")))
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
