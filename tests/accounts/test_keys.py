"""Keys: whose they are, how long they hold, and what is kept of them."""

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from storygen.accounts import keys as module
from storygen.accounts.keys import NOBODY, PREFIX, Keys
from storygen.accounts.users import Users
from storygen.cli import main
from storygen.errors import AccountError
from storygen.settings import Settings
from storygen.story.database import Database
from storygen.story.schema import api_keys

GOOD = "rope lantern otter"


@pytest.fixture
def keys(database: Database) -> Keys:
    return Keys(database)


async def test_a_key_lets_its_user_in_until_it_is_revoked(users: Users, keys: Keys):
    ada = await users.add("Ada", None)
    first, second = await keys.add("ada"), await keys.add("Ada", "laptop")
    assert first.startswith(PREFIX)
    assert first != second
    assert await keys.user(first) == await keys.user(second) == ada
    told = await keys.keys()
    assert [(key.user, key.label) for key in told] == [("Ada", ""), ("Ada", "laptop")]
    await keys.revoke(told[0].id)
    assert await keys.user(first) is None
    assert await keys.user(second) == ada
    with pytest.raises(AccountError, match="no key"):
        await keys.revoke(told[0].id)


@pytest.mark.parametrize("wrong", ["", "x", "sg-", "sg-" + "A" * 43, "é\ud800\0", "s" * 10_000])
async def test_no_other_key_lets_anybody_in(users: Users, keys: Keys, wrong: str):
    await users.add("Ada", None)
    key = await keys.add("Ada")
    assert await keys.user(wrong) is None
    assert await keys.user(key[:-1]) is None
    assert await keys.user(key.swapcase()) is None


async def test_only_the_hash_is_kept(users: Users, keys: Keys, database: Database):
    await users.add("Ada", None)
    key = await keys.add("Ada")
    async with database.read() as connection:
        rows = (await connection.execute(sa.select(api_keys))).all()
    assert key not in str(rows)
    assert key.removeprefix(PREFIX) not in str(rows)
    assert len(rows[0].key_hash) == 64


async def test_a_key_ends_with_its_user_and_rests_while_they_are_disabled(users: Users, keys: Keys):
    await users.add("Ada", GOOD)
    key = await keys.add("Ada")
    await users.disable("Ada")
    assert await keys.user(key) is None
    await users.enable("Ada")
    await users.set_password("Ada", GOOD + " too")  # which ends sign-ins
    assert await keys.user(key) is not None
    await users.remove("Ada", with_stories=False)
    assert await keys.user(key) is None
    assert await keys.keys() == []


async def test_the_last_use_is_noted_to_the_minute(
    users: Users, keys: Keys, monkeypatch: pytest.MonkeyPatch
):
    await users.add("Ada", None)
    key, now = await keys.add("Ada"), datetime(2030, 1, 1, tzinfo=UTC)

    async def used_at(seconds: int) -> datetime | None:
        monkeypatch.setattr(module, "_now", lambda: now + timedelta(seconds=seconds))
        assert await keys.user(key) is not None
        return (await keys.keys())[0].used_at

    assert (await keys.keys())[0].used_at is None
    assert await used_at(0) == await used_at(59) == now
    assert await used_at(61) == now + timedelta(seconds=61)


async def test_keys_of_nobody_and_names_that_cannot_be_seen_are_sentences(users: Users, keys: Keys):
    with pytest.raises(AccountError, match="no user 'Ben'"):
        await keys.add("Ben")
    await users.add("Ada", None)
    for label in ("a\nb", "x" * 81):
        with pytest.raises(AccountError, match="no name for a key"):
            await keys.add("Ada", label)


async def test_the_installations_own_key_needs_no_database():
    keys = Keys(own="a secret of the installation")
    user = await keys.user("a secret of the installation")
    assert user is not None
    assert (user.id, user.is_admin) == (NOBODY, False)
    assert await keys.user("another") is None
    assert await Keys().user("") is None
    long = "k" * 1000
    assert await Keys(own=long).user(long) is not None
    assert await Keys(own=long).user(long + "k") is None


def test_the_command_from_the_first_key_to_the_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")
    monkeypatch.setenv("STORYGEN_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("STORYGEN_DATABASE_URL", raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO(GOOD))

    def run(*words: str) -> tuple[int, str]:
        code = main(list(words))
        said = capsys.readouterr()
        return code, (said.err if code else said.out).strip()

    assert run("keys", "list") == (0, "There are no keys: python -m storygen keys add USER")
    assert run("keys", "add", "Ada")[0] == 1
    assert run("users", "add", "Ada")[0] == 0
    code, key = run("keys", "add", "Ada", "--name", "laptop")
    assert (code, key[:3]) == (0, "sg-")
    [listed] = json.loads(run("keys", "list", "--json")[1])
    assert (listed["user"], listed["label"], listed["used_at"]) == ("Ada", "laptop", None)
    assert key not in json.dumps(listed)
    assert "never used  laptop" in run("keys", "list")[1]
    assert run("keys", "revoke", listed["id"]) == (0, f"{listed['id']} is revoked.")
    assert run("keys", "revoke", listed["id"])[0] == 1
