from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from storygen.accounts import passwords
from storygen.accounts import sign_ins as module
from storygen.accounts.sign_ins import LONGEST, UNUSED, SignIns, hash_of
from storygen.accounts.users import Users
from storygen.errors import DatabaseError
from storygen.story.database import Database
from storygen.story.schema import sign_ins as table

GOOD, BETTER = "rope lantern otter", "otter lantern rope"


@pytest.fixture
async def ada(users: Users) -> str:
    return (await users.add("Ada", GOOD)).id


async def begun(sign_ins: SignIns, password: str = GOOD) -> str:
    token = await sign_ins.begin("ada", password)
    assert token is not None
    return hash_of(token)


async def test_the_right_password_signs_in_and_the_secret_is_not_kept(
    sign_ins: SignIns, database: Database, ada: str
) -> None:
    token = await sign_ins.begin("ADA", GOOD)
    assert token is not None
    assert len(token) >= 43  # 256 bits
    user = await sign_ins.user(hash_of(token))
    assert user is not None
    assert user.id == ada
    async with database.read() as connection:
        rows = (await connection.execute(sa.select(table))).all()
    assert token not in str(rows)
    assert token != await sign_ins.begin("ada", GOOD)


async def test_wrong_names_and_passwords_are_tried_alike_and_refused(
    sign_ins: SignIns, users: Users, ada: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await users.add("No Password", None)
    tried: list[object] = []

    async def matches(kept: str | None, password: str) -> bool:
        tried.append(kept)
        return await matched(kept, password)

    matched = passwords.matches
    monkeypatch.setattr(passwords, "matches", matches)
    for name, password in [("ada", BETTER), ("eve", GOOD), ("no password", GOOD), ("ada", "")]:
        assert await sign_ins.begin(name, password) is None
    assert len(tried) == 4  # a hash is worked out each time, so none is answered sooner


async def test_it_ends_at_once_however_it_is_ended(
    sign_ins: SignIns, users: Users, ada: str
) -> None:
    endings = {
        "signing out": lambda last: sign_ins.end(last),
        "being signed out": lambda _: users.sign_out("ada"),
        "another password": lambda _: users.set_password("ada", GOOD),
        "disabling": lambda _: users.disable("ada"),
    }
    for name, end in endings.items():
        last = await begun(sign_ins)
        assert await sign_ins.living([last, "x"]) == {last}, name
        await end(last)
        assert await sign_ins.user(last) is None, name
        assert await sign_ins.living([last]) == set(), name
    assert await sign_ins.begin("ada", GOOD) is None  # disabled
    await users.enable("ada")
    last = await begun(sign_ins)
    await users.remove("ada", with_stories=True)
    assert await sign_ins.user(last) is None


async def test_signing_out_in_one_browser_leaves_the_other(sign_ins: SignIns, ada: str) -> None:
    one, other = await begun(sign_ins), await begun(sign_ins)
    await sign_ins.end(one)
    assert await sign_ins.living([one, other]) == {other}


async def test_it_ends_when_unused_for_long_and_after_a_week_in_any_case(
    sign_ins: SignIns, ada: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    last, start = await begun(sign_ins), datetime.now(UTC)

    def later(by: timedelta) -> None:
        class Later(datetime):
            @classmethod
            def now(cls, tz: object = None) -> datetime:
                return start + by

        monkeypatch.setattr(module, "datetime", Later)

    later(UNUSED + timedelta(minutes=1))
    assert await sign_ins.user(last) is None
    day = timedelta(0)
    while (day := day + timedelta(hours=11)) < LONGEST:
        later(day)
        assert await sign_ins.user(last) is not None, day
        await sign_ins.note_seen()
    later(LONGEST + timedelta(minutes=1))
    assert await sign_ins.user(last) is None
    new = await begun(sign_ins)  # and whoever signs in sweeps what has ended
    assert await sign_ins.living([last, new]) == {new}


async def test_who_was_here_is_not_forgotten_while_the_database_is_away(
    sign_ins: SignIns, database: Database, ada: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    last, long_ago = await begun(sign_ins), datetime.now(UTC) - UNUSED / 2
    async with database.write() as connection:
        await connection.execute(table.update().values(seen_at=long_ago))
    assert await sign_ins.user(last) is not None

    def away() -> None:
        raise DatabaseError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(database, "write", away)
        with pytest.raises(DatabaseError):
            await sign_ins.note_seen()
    await sign_ins.note_seen()
    async with database.read() as connection:
        seen = (await connection.execute(sa.select(table.c.seen_at))).scalar_one()
    assert seen > long_ago


async def test_a_password_changed_while_the_old_one_is_tried_lets_nobody_in(
    sign_ins: SignIns, users: Users, ada: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    matched = passwords.matches

    async def slow(kept: str | None, password: str) -> bool:
        found = await matched(kept, password)
        await users.set_password("ada", BETTER)
        return found

    monkeypatch.setattr(passwords, "matches", slow)
    assert await sign_ins.begin("ada", GOOD) is None


async def test_a_cookie_of_any_characters_is_nobodys(sign_ins: SignIns, ada: str) -> None:
    for token in ("", "x" * 100_000, "\ud800", "' or 1=1 --"):
        assert await sign_ins.user(hash_of(token)) is None
