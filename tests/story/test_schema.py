import sqlite3
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from storygen.errors import StoryError
from storygen.story import database as database_module
from storygen.story.database import Database
from storygen.story.schema import head_moves, metadata, passages
from storygen.story.store import StoryStore


async def test_the_migrations_make_the_tables_that_the_code_expects(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # nothing may depend on where it is run
    database = await Database.open(url)

    def differences(connection: sa.Connection) -> list[object]:
        options = {"compare_type": True, "compare_server_default": True}
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)

    async with database.read() as connection:
        assert await connection.run_sync(differences) == []
    await database.close()


async def test_a_migration_that_is_cut_off_leaves_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise sa.exc.OperationalError("INSERT", {}, Exception("power cut"))

    with monkeypatch.context() as patch:  # the last step of a migration writes its number down
        patch.setattr("alembic.runtime.migration.HeadMaintainer._insert_version", fail)
        with pytest.raises(StoryError, match="power cut"):
            await StoryStore.open(url)
    store = await StoryStore.open(url)
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
    with pytest.raises(StoryError, match="FOREIGN KEY constraint failed"):
        async with database.write() as connection:
            await connection.execute(wrong[foreign])
    async with database.write() as connection:  # without what is foreign in it, it is accepted
        await connection.execute(passages.insert().values(row))
    await database.close()


async def test_stories_of_the_first_version_open_and_go_on(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data" / "stories.db"
    with monkeypatch.context() as patch:  # the program as it was before the second migration
        upgrade = database_module.command.upgrade
        patch.setattr(database_module.command, "upgrade", lambda config, _: upgrade(config, "0001"))
        await (await Database.open(url)).close()
    story_id, first, second = (str(uuid4()) for _ in range(3))
    moment = "2026-01-02 03:04:05.000006"
    with closing(sqlite3.connect(path)) as old, old:
        columns = "id, owner, title, settings, passage_count, head_number, created_at, updated_at"
        old.execute(
            f"insert into stories ({columns}) values (?, 'me', 'Fog', ?, 2, 2, ?, ?)",
            (story_id, '{"top_k": 5}', moment, moment),
        )
        for number, (passage_id, parent_id) in enumerate([(first, None), (second, first)], 1):
            columns = "id, story_id, owner, number, parent_id, role, text, state, created_at"
            old.execute(
                f"insert into passages ({columns}) "
                "values (?, ?, 'me', ?, ?, 'writer', 'Fog.', 'complete', ?)",
                (passage_id, story_id, number, parent_id, moment),
            )
            old.execute(
                "insert into head_moves (story_id, number, owner, passage_id) "
                "values (?, ?, 'me', ?)",
                (story_id, number, passage_id),
            )
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
