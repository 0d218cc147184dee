import asyncio
from contextlib import AbstractAsyncContextManager
from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from storygen.accounts.sign_ins import SignIns, hash_of
from storygen.accounts.users import LONGEST_NAME, Users, known_as
from storygen.errors import AccountError, DatabaseError
from storygen.story import purge
from storygen.story.database import Database
from storygen.story.schema import marks, passages, stories
from storygen.story.schema import users as users_table
from storygen.story.store import StoryStore

GOOD, BETTER = "rope lantern otter", "otter lantern rope"


async def test_a_name_is_one_name_in_whatever_case_and_width(users: Users) -> None:
    ada = await users.add("Ada  Straße", GOOD)
    assert ada.name == "Ada Straße"
    for name in ("ada strasse", "ADA STRASSE", " Ada Straße ", "Ａｄａ Straße"):
        assert await users.user(name) == ada
        with pytest.raises(AccountError, match="already"):
            await users.add(name, GOOD)
    assert known_as("Ⅳ") == known_as("iv")


@pytest.mark.parametrize(
    "name", ["", "  ", "x" * (LONGEST_NAME + 1), "a\x00b", "a\u202eb", "\ud800"]
)
async def test_a_name_that_cannot_be_read_is_none(users: Users, name: str) -> None:
    with pytest.raises(AccountError, match="no name of a user"):
        await users.add(name, GOOD)
    assert await users.count() == 0


async def test_two_at_once_make_one_user(users: Users) -> None:
    made = await asyncio.gather(*(users.add("Ada", None) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(answer, AccountError) for answer in made) == 4
    met = await asyncio.gather(*(users.introduced("Bob") for _ in range(5)))
    assert len({user.id for user in met if user}) == 1
    assert await users.count() == 2


async def test_whom_a_proxy_names_is_added_once_and_not_let_in_when_disabled(users: Users) -> None:
    ada = await users.introduced("ada")
    assert ada is not None
    assert not ada.is_admin
    assert await users.introduced("ada") == ada
    await users.disable("ada")
    assert await users.introduced("ada") is None
    assert await users.enabled([ada.id, "nobody"]) == set()
    await users.enable("ada")
    assert await users.introduced("ada") == ada
    assert await users.enabled([ada.id, "nobody"]) == {ada.id}


@pytest.mark.parametrize("name", ["ADA", "ada", "Ａda", "Ad\u1d43"])
async def test_a_proxys_user_never_gets_the_account_of_one_of_a_like_name(
    users: Users, name: str
) -> None:
    """To a provider that minds case and width these are others, and had Ada's stories."""
    ada = await users.introduced("Ada")
    with pytest.raises(AccountError, match=r"differs from .* in case, width or form alone"):
        await users.introduced(name)
    assert [account.user for account in await users.accounts()] == [ada]
    renamed = await users.rename("Ada", name)
    assert ada is not None
    assert (renamed.id, renamed.name) == (ada.id, name)
    assert await users.introduced(name) == renamed


@pytest.mark.parametrize(
    "name",
    [" Ada", "Ada  L", "Ada\tL", "Zoe\u0308", "\u212b", "A\u200bda", "A\u202eda", "", "x" * 65],
)
async def test_a_name_that_would_be_changed_is_not_taken_from_a_proxy(
    users: Users, name: str
) -> None:
    with pytest.raises(AccountError, match=r"is not written as|is no name of a user"):
        await users.introduced(name)
    assert await users.count() == 0


async def test_a_user_keeps_all_but_the_name(users: Users, database: Database) -> None:
    ada, _ = await users.add("Ada", GOOD), await users.add("Bob", GOOD)
    sign_ins = SignIns(database)
    token = await sign_ins.begin("ada", GOOD)
    assert token is not None
    await users.rename("ada", "Countess")
    user = await sign_ins.user(hash_of(token))
    assert user is not None
    assert (user.id, user.name) == (ada.id, "Countess")
    assert await sign_ins.begin("COUNTESS", GOOD)
    assert await sign_ins.begin("ada", GOOD) is None
    for taken in ("Bob", "BOB"):
        with pytest.raises(AccountError, match="already"):
            await users.rename("Countess", taken)
    with pytest.raises(AccountError, match="no user"):
        await users.rename("Ada", "Lady")


async def test_no_password_is_kept_as_it_is(users: Users, database: Database) -> None:
    await users.add("Ada", GOOD)
    async with database.read() as connection:
        rows = (await connection.execute(sa.select(users_table))).all()
    assert GOOD not in str(rows)


@pytest.mark.parametrize("with_stories", [True, False])
async def test_stories_go_or_stay_as_asked_and_those_of_others_stay(
    users: Users, database: Database, url: str, with_stories: bool
) -> None:
    ada, bob = await users.add("Ada", GOOD), await users.add("Bob", GOOD)
    store = await StoryStore.open(url)
    for owner in (ada.id, bob.id):
        story = await store.create_story(owner, title="Fog")
        first = await store.add_passage(owner, story.id, "writer", "Fog.")
        await store.add_passage(owner, story.id, "writer", "Rain.")
        await store.mark(owner, story.id, first.id, favourite=True)
    removed, count = await users.remove("ada", with_stories=with_stories)
    assert (removed, count) == (ada, 1)
    assert len(await store.stories(bob.id)) == 1
    async with database.read() as connection:
        for table in (stories, passages, marks):
            query = sa.select(sa.func.count()).select_from(table).where(table.c.owner == ada.id)
            assert ((await connection.execute(query)).scalar_one() == 0) == with_stories
    await store.close()
    if with_stories:
        with pytest.raises(AccountError, match="no stories of"):
            await users.add("Eve", GOOD, user_id=ada.id)
        return
    eve = await users.add("Eve", GOOD, user_id=ada.id)
    assert [(a.user.name, a.stories) for a in await users.accounts()] == [("Bob", 1), ("Eve", 1)]
    with pytest.raises(AccountError, match="belong to a user already"):
        await users.add("Mallory", GOOD, user_id=eve.id)


async def test_a_removed_users_stories_go_in_small_steps(
    users: Users, database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one, 349 MB of them locked everybody out."""
    monkeypatch.setattr(purge, "BATCH", 3)
    ada = await users.add("Ada", GOOD)
    store = await StoryStore.open(url)
    for _ in range(3):
        story = await store.create_story(ada.id)
        for n in range(7):
            await store.add_passage(ada.id, story.id, "writer", f"{n}")
    writes, database_write = 0, database.write

    def write() -> AbstractAsyncContextManager[AsyncConnection]:
        nonlocal writes
        writes += 1
        if writes == 9:
            raise DatabaseError("The power is cut.")
        return database_write()

    monkeypatch.setattr(database, "write", write)
    with pytest.raises(DatabaseError):  # between two steps
        await users.remove("ada", with_stories=True)
    assert await users.count() == 0
    assert await store.stories(ada.id) == await store.stories(ada.id, deleted=True) == []
    with pytest.raises(AccountError, match="no stories of"):
        await users.add("Eve", GOOD, user_id=ada.id)
    monkeypatch.setattr(purge, "ADDING", timedelta())
    assert await purge.purge_old(store.growing, 0) == 3  # what is left goes with the next round
    async with database.read() as connection:
        for table in (stories, passages):
            query = sa.select(sa.func.count()).select_from(table)
            assert (await connection.execute(query)).scalar_one() == 0
    await store.close()


async def test_an_unknown_name_is_named_with_the_way_out(users: Users) -> None:
    for attempt in (users.user("x"), users.disable("x"), users.set_password("x", GOOD)):
        with pytest.raises(AccountError, match=r"no user 'x'.*users list"):
            await attempt
