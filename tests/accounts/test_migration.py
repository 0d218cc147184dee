"""The tables of accounts come to databases that have stories in them already."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from storygen.accounts.sign_ins import SignIns, hash_of
from storygen.accounts.users import Users
from storygen.story import database as module
from storygen.story.database import Database
from storygen.story.store import StoryStore

GOOD = "rope lantern otter"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'stories.db'}"


@pytest.mark.parametrize("version", ["0001", "0002"])
async def test_stories_of_earlier_versions_can_be_given_to_a_user(
    url: str, tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:  # the program as it was before
        upgrade = module.command.upgrade
        patch.setattr(module.command, "upgrade", lambda config, _: upgrade(config, version))
        await (await Database.open(url)).close()
    moment = "2026-01-02 03:04:05.000006"
    with closing(sqlite3.connect(tmp_path / "stories.db")) as old, old:
        columns = "id, owner, title, settings, passage_count, head_number, created_at, updated_at"
        values = "'a', 'writer', 'Fog', '{}', 0, 0, ?, ?"
        old.execute(f"insert into stories ({columns}) values ({values})", (moment, moment))
    database = await Database.open(url)
    users, sign_ins = Users(database), SignIns(database)
    assert await users.count() == 0
    ada = await users.add("Ada", GOOD, user_id="writer")
    token = await sign_ins.begin("ada", GOOD)
    assert token is not None
    assert await sign_ins.user(hash_of(token)) == ada
    await database.close()
    store = await StoryStore.open(url)
    assert [story.title for story in await store.stories(ada.id)] == ["Fog"]
    await store.close()
