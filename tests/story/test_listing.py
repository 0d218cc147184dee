"""The list of stories: what a search finds, what it costs, and what becomes of one left behind."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from storygen.errors import DatabaseError, NoStoryError
from storygen.story import listing
from storygen.story.rows import MAX_SEARCH
from storygen.story.store import StoryStore

ME, YOU = "me@example.org", "you@example.org"
NOWHERE = "00000000-0000-4000-8000-000000000000"


async def told(store: StoryStore, text: str, owner: str = ME) -> str:
    """A new story of this text; its id."""
    story = await store.create_story(owner)
    await store.add_passage(owner, story.id, "writer", text)
    return story.id


# What is there, and what is not


async def test_a_story_that_is_not_there_is_told_from_a_database_that_is_away(
    store: StoryStore,
) -> None:
    gone, yours = await told(store, "x"), await told(store, "x", YOU)
    await store.delete_story(ME, gone)
    for story_id in (NOWHERE, gone, yours):
        for ask in (store.story, store.tree, store.undo, store.delete_story):
            with pytest.raises(NoStoryError, match="There is no story"):
                await ask(ME, story_id)
    assert not issubclass(DatabaseError, NoStoryError)


async def test_all_titles_are_those_at_hand_and_then_the_archived(store: StoryStore) -> None:
    ids = [(await store.create_story(ME, title=f"Story {n}")).id for n in range(5)]
    await store.create_story(YOU, title="Not mine")
    await store.archive(ME, ids[4], archived=True)
    await store.delete_story(ME, ids[2])
    await store.rename(ME, ids[0], "Last changed")
    expected = [(ids[0], "Last changed"), *((ids[n], f"Story {n}") for n in (3, 1, 4))]
    assert list((await store.titles(ME)).items()) == expected


async def test_of_all_titles_no_settings_are_read(
    store: StoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a thousand stories, parsed, were 700 MB."""
    await store.create_story(ME, settings={"top_k": 1})
    asked: list[str] = []

    def see(connection: object, cursor: object, statement: str, *rest: object) -> None:
        asked.append(statement)

    monkeypatch.setattr(json, "loads", pytest.fail)
    sa.event.listen(sa.Engine, "before_cursor_execute", see)
    try:
        assert len(await store.titles(ME)) == 1
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", see)
    assert [statement for statement in asked if "settings" in statement] == []


# Searches


@pytest.mark.parametrize(
    ("text", "finds", "not_found"),
    [
        ("It RAINED.", ["it rained", "RAINED."], ["itrained", "rained!"]),
        ("a%b_c\\d/e*f", ["A%B", "_c", "\\D", "/e*F", "a%b_c\\d/e*f"], ["a_b", "%c", "a*f"]),
        ("(x)[y]^z$ a.c", ["(X)[y]^Z$", "a.c"], ["x[y]", "a.cc", "^(x)", "y]^$"]),
        ("***=(?i)", ["***=", "(?I)"], ["***=(?i)x"]),
        ("one\ntwo\r\n\tthree", ["e\nTWO", "\r\n\tth"], ["one two"]),
        ("\N{OLD ITALIC LETTER A}é雨", ["é", "雨", "\N{OLD ITALIC LETTER A}é"], ["雨é"]),
        ("half \ud800 of one", ["\ud800", "\ufffd OF"], ["\ud800\ud800"]),
        ("b" + "a" * 700, ["B" + "a" * (MAX_SEARCH - 1)], ["a" * (MAX_SEARCH - 1) + "b"]),
    ],
)
async def test_a_search_finds_a_text_letter_by_letter_in_either_case(
    store: StoryStore, text: str, finds: list[str], not_found: list[str]
) -> None:
    story_id = await told(store, text)
    title = await store.create_story(ME, title=text[:100])
    for needle in finds:
        found = [story.id for story in await store.stories(ME, search=needle)]
        assert story_id in found, needle
        assert (title.id in found) == (len(needle) <= 100), needle
    for needle in not_found:
        assert await store.stories(ME, search=needle) == [], needle


async def test_a_search_looks_beyond_a_nul(sqlite_url: str) -> None:
    store = await StoryStore.open(sqlite_url)
    await told(store, "before\0after")
    for needle, count in {"after": 1, "E\0A": 1, "e\0b": 0}.items():
        assert len(await store.stories(ME, search=needle)) == count, needle
    await store.close()


async def test_no_search_takes_much_longer_than_others(store: StoryStore) -> None:
    """One for a text that almost stands everywhere compared each of its characters at each place:
    four of them in 16 MB took 43 s of a processor."""
    await told(store, "a" * 2_000_000)

    async def seconds(needle: str) -> float:
        took = []
        for _ in range(3):
            began = time.perf_counter()
            assert await store.stories(ME, search=needle) == []
            took.append(time.perf_counter() - began)
        return min(took)

    plain, half = await seconds("lantern"), MAX_SEARCH // 2
    for hostile in ("a" * 499 + "b", "b" + "a" * 499, "a" * half + "b" + "a" * (half - 1)):
        assert await seconds(hostile) < 15 * plain, hostile[:: half - 1]


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not is_so():  # noqa: ASYNC110 - a thread sets no event
            await asyncio.sleep(0.001)


class Asking:
    """Searches that go on until they are let end."""

    def __init__(self) -> None:
        self.at_work, self.begun = Counter[str](), 0
        self.most, self.go_on = Counter[str](), asyncio.Event()

    async def ask(self, connection: AsyncConnection, query: sa.Select[Any]) -> Any:
        """In place of database.ask, which what is no search does not wait for."""
        given = query.compile().params.values()
        if "rain" not in given:
            return await connection.execute(query)
        owner = ME if ME in given else YOU
        self.begun += 1
        self.at_work[owner] += 1
        self.most[owner] = max(self.most[owner], self.at_work[owner])
        try:
            await self.go_on.wait()
            return await connection.execute(query)
        finally:
            self.at_work[owner] -= 1


async def test_of_a_users_searches_one_is_at_work(
    store: StoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for owner in (ME, YOU):
        await told(store, "rain", owner)
    asking = Asking()
    monkeypatch.setattr(listing, "ask", asking.ask)
    searches = [
        asyncio.create_task(store.stories(owner, search="rain")) for owner in (ME, ME, ME, YOU)
    ]
    await until(lambda: asking.begun == 2)
    gone = searches.pop(1)
    gone.cancel()  # whoever waits may leave
    await asyncio.wait([gone])
    assert gone.cancelled()
    asking.go_on.set()
    assert [len(found) for found in await asyncio.gather(*searches)] == [1, 1, 1]
    assert asking.most == {ME: 1, YOU: 1}
    assert asking.begun == 3


async def test_a_list_without_a_search_waits_for_none(
    store: StoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await told(store, "rain")
    asking = Asking()
    monkeypatch.setattr(listing, "ask", asking.ask)
    search = asyncio.create_task(store.stories(ME, search="rain"))
    await until(lambda: asking.begun == 1)
    assert len(await store.titles(ME)) == 1
    assert len(await store.stories(ME)) == 1
    asking.go_on.set()
    assert len(await search) == 1


LONG = 3_000_000


def long(step: str) -> sa.TextClause:
    """A condition that takes so many steps, which are some seconds, and is not met."""
    rows = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT {step} FROM n WHERE i < {LONG})"
    return sa.text(f"EXISTS ({rows} SELECT i FROM n WHERE i = 0)")


async def left(search: asyncio.Task[Any]) -> None:
    """Whoever searched is gone."""
    search.cancel()
    async with asyncio.timeout(30):
        await asyncio.wait([search])
    assert search.cancelled()


async def test_sqlite_works_no_longer_on_a_search_that_nobody_waits_for(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It went on for minutes after its client had left."""
    beats: list[int] = []

    def listen(connection: Any, _: object) -> None:
        connection.create_function("beat", 1, lambda i: beats.append(i) or i + 1)

    sa.event.listen(sa.Pool, "connect", listen)
    store = await StoryStore.open(sqlite_url)
    await told(store, "rain")
    with monkeypatch.context() as patch:
        patch.setattr(listing, "mentions", lambda *_: long("beat(i)"))
        search = asyncio.create_task(store.stories(ME, search="rain"))
        await until(lambda: beats != [])
        await left(search)
    count = len(beats)
    assert count < LONG - 1
    assert len(await store.stories(ME, search="rain")) == 1
    assert len(beats) == count
    await store.close()
    sa.event.remove(sa.Pool, "connect", listen)


async def test_postgresql_works_no_longer_on_a_search_that_nobody_waits_for(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await StoryStore.open(postgresql_url)
    await told(store, "rain")

    async def at_work() -> int:
        active = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'"
        query = f"{active} AND query ~ 'RECURSIV[E]'"
        async with store.database.read() as connection:
            return (await connection.exec_driver_sql(query)).scalar_one()

    with monkeypatch.context() as patch:
        patch.setattr(listing, "mentions", lambda *_: long("i + 1"))
        search = asyncio.create_task(store.stories(ME, search="rain"))
        async with asyncio.timeout(30):
            while not await at_work():  # noqa: ASYNC110 - a server sets no event
                await asyncio.sleep(0.001)
        await left(search)
    async with asyncio.timeout(30):
        while await at_work():  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.001)
    assert len(await store.stories(ME, search="rain")) == 1
    await store.close()
