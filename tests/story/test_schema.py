import asyncio
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from storygen.errors import StoryError
from storygen.story import database as database_module
from storygen.story.database import Database
from storygen.story.schema import UtcDateTime, head_moves, metadata, passages
from storygen.story.store import StoryStore


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest) -> str:
    """A database without any table, of each kind."""
    if request.param == "postgresql":
        new: str = request.getfixturevalue("postgresql").new_database()
        return new
    url: str = request.getfixturevalue("sqlite_url")
    return url


async def test_the_migrations_make_the_tables_that_the_code_expects(
    empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # nothing may depend on where it is run
    database = await Database.open(empty_url)

    def differences(connection: sa.Connection) -> list[object]:
        options = {"compare_type": True, "compare_server_default": True}
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)

    async with database.read() as connection:
        assert await connection.run_sync(differences) == []
    await database.close()


async def test_programs_that_start_at_once_bring_the_schema_up_to_date_once(
    empty_url: str,
) -> None:
    databases = await asyncio.gather(*(Database.open(empty_url) for _ in range(4)))
    for database in databases:
        async with database.read() as connection:
            await connection.execute(sa.select(passages))
        await database.close()


async def test_a_migration_that_is_cut_off_leaves_nothing(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise sa.exc.OperationalError("INSERT", {}, Exception("power cut"))

    with monkeypatch.context() as patch:  # the last step of a migration writes its number down
        patch.setattr("alembic.runtime.migration.HeadMaintainer._insert_version", fail)
        with pytest.raises(StoryError, match="power cut"):
            await StoryStore.open(empty_url)
    store = await StoryStore.open(empty_url)
    assert await store.stories("me") == []
    await store.close()


@pytest.mark.parametrize("foreign", ["owner", "parent_id", "head"])
async def test_the_database_itself_keeps_stories_apart(url: str, foreign: str) -> None:
    store = await StoryStore.open(url)
    mine, yours = await store.create_story("me"), await store.create_story("you")
    told = await store.add_passage("you", yours.id, "writer", "x")
    await store.close()
    row = {"id": str(uuid4()), "story_id": mine.id, "owner": "me", "number": 1, "role": "writer"}
    row |= {"text": "x", "state": "complete", "created_at": mine.created_at}
    wrong = {
        "owner": passages.insert().values(row | {"owner": "you"}),
        "parent_id": passages.insert().values(row | {"parent_id": told.id}),
        "head": head_moves.insert().values(
            story_id=mine.id, owner="me", number=1, passage_id=told.id
        ),
    }
    database = await Database.open(url)
    with pytest.raises(StoryError, match=r"(?i)foreign key constraint"):
        async with database.write() as connection:
            await connection.execute(wrong[foreign])
    async with database.write() as connection:  # without what is foreign in it, it is accepted
        await connection.execute(passages.insert().values(row))
    await database.close()


async def test_stories_of_the_first_version_open_and_go_on(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = empty_url
    with monkeypatch.context() as patch:  # the program as it was before the second migration
        upgrade = database_module.command.upgrade
        patch.setattr(database_module.command, "upgrade", lambda config, _: upgrade(config, "0001"))
        old = await Database.open(url)
    story_id, first, second = (str(uuid4()) for _ in range(3))
    row = {"story": story_id, "settings": {"top_k": 5}, "moment": datetime(2026, 1, 2, tzinfo=UTC)}
    kinds = [sa.bindparam("moment", type_=UtcDateTime), sa.bindparam("settings", type_=sa.JSON)]
    columns = "id, owner, title, settings, passage_count, head_number, created_at, updated_at"
    story_row = sa.text(
        f"insert into stories ({columns}) "
        "values (:story, 'me', 'Fog', :settings, 2, 2, :moment, :moment)"
    ).bindparams(*kinds)
    columns = "id, story_id, owner, number, parent_id, role, text, state, created_at"
    passage_row = sa.text(
        f"insert into passages ({columns}) "
        "values (:id, :story, 'me', :number, :parent, 'writer', 'Fog.', 'complete', :moment)"
    ).bindparams(kinds[0])
    move_row = sa.text(
        "insert into head_moves (story_id, number, owner, passage_id) "
        "values (:story, :number, 'me', :id)"
    )
    async with old.write() as connection:
        await connection.execute(story_row, row)
        for number, (passage_id, parent_id) in enumerate([(first, None), (second, first)], 1):
            told = row | {"id": passage_id, "number": number, "parent": parent_id}
            await connection.execute(passage_row, told)
            await connection.execute(move_row, told)
    await old.close()
    store = await StoryStore.open(url)
    (story,) = await store.stories("me")
    assert (story.id, story.title, story.settings, story.archived) == (
        story_id,
        "Fog",
        {"top_k": 5},
        False,
    )
    told = (await store.tree("me", story_id)).branch()
    assert [(p.id, p.text, p.source_id) for p in told] == [
        (first, "Fog.", None),
        (second, "Fog.", None),
    ]
    await store.rewrite("me", story_id, {first: "Rain."})
    await store.mark("me", story_id, first, favourite=True)
    assert (await store.undo("me", story_id)).head_id == second
    await store.close()
