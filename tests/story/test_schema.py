import asyncio
import sqlite3
from contextlib import closing
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
from storygen.story.schema import head_moves, metadata, passages
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


async def test_a_new_file_that_another_program_begins_to_use_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "stories.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # what it does itself while it changes the journal
        opening = asyncio.create_task(Database.open(f"sqlite+aiosqlite:///{path}"))
        await asyncio.sleep(0.3)
        assert not opening.done()
        other.execute("COMMIT")
        await (await opening).close()


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


STORY, FIRST, SECOND = (str(uuid4()) for _ in range(3))
THEN = datetime(2026, 1, 2, 3, 4, 5, 6, UTC)
OF_STORY = {"story_id": STORY, "owner": "me"}
PASSAGE = OF_STORY | {"role": "writer", "text": "Fog.", "state": "complete", "created_at": THEN}
ROWS: list[tuple[str, dict[str, object]]] = [  # of a column that came later nothing is kept
    (
        "stories",
        {"id": STORY, "owner": "me", "title": "Fog", "settings": {"top_k": 5}, "passage_count": 2}
        | {"head_number": 2, "created_at": THEN, "updated_at": THEN, "archived_at": THEN},
    ),
    ("passages", PASSAGE | {"id": FIRST, "number": 1}),
    ("passages", PASSAGE | {"id": SECOND, "number": 2, "parent_id": FIRST, "source_id": FIRST}),
    ("head_moves", OF_STORY | {"number": 1, "passage_id": FIRST}),
    ("head_moves", OF_STORY | {"number": 2, "passage_id": SECOND}),
    (
        "marks",
        OF_STORY
        | {"passage_id": FIRST, "name": "Rain", "favourite": True, "rating": 1, "deleted": False},
    ),
    (
        "users",
        {"id": "me", "name": "Ada", "known_as": "ada", "is_admin": True, "created_at": THEN},
    ),
    ("sign_ins", {"token_hash": "a" * 64, "user_id": "me", "created_at": THEN, "seen_at": THEN}),
    ("api_keys", {"key_hash": "b" * 64, "user_id": "me", "label": "class", "created_at": THEN}),
]


def columns_of(connection: sa.Connection) -> dict[str, list[str]]:
    """The tables of ROWS that there are, and their columns."""
    there = sa.inspect(connection)
    names = dict.fromkeys(table for table, _ in ROWS)
    return {
        table: [str(column["name"]) for column in there.get_columns(table)]
        for table in names
        if there.has_table(table)
    }


async def rows_of(database: Database, columns: dict[str, list[str]]) -> dict[str, list[object]]:
    """All that is in these tables, in these columns."""
    async with database.read() as connection:
        found = {}
        for table, names in columns.items():
            wanted = sa.select(*(metadata.tables[table].c[name] for name in names))
            found[table] = sorted(map(repr, await connection.execute(wanted)))
        return found


@pytest.mark.parametrize("revision", ["0001", "0002", "0003", "0004", "0005"])
async def test_what_an_earlier_version_kept_opens_and_goes_on(
    empty_url: str, revision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:  # the program as it was
        upgrade = database_module.command.upgrade
        patch.setattr(
            database_module.command, "upgrade", lambda config, _: upgrade(config, revision)
        )
        old = await Database.open(empty_url)
    async with old.write() as connection:
        columns = await connection.run_sync(columns_of)
        for table, row in ROWS:
            if table in columns:
                kept = {name: row[name] for name in columns[table] if name in row}
                await connection.execute(metadata.tables[table].insert().values(kept))
    before = await rows_of(old, columns)
    await old.close()
    assert all(before.values())
    assert len(columns) == {"0001": 3, "0002": 4, "0003": 6, "0004": 7, "0005": 7}[revision]
    store = await StoryStore.open(empty_url)
    assert await rows_of(store.database, columns) == before
    put_away = revision != "0001"
    assert len(await store.stories("me")) == (not put_away)
    story = await store.archive("me", STORY, archived=False)
    assert (story.title, story.settings, story.created_at) == ("Fog", {"top_k": 5}, THEN)
    tree = await store.tree("me", STORY)
    source = FIRST if put_away else None
    assert [(p.id, p.text, p.source_id) for p in tree.branch()] == [
        (FIRST, "Fog.", None),
        (SECOND, "Fog.", source),
    ]
    await store.rewrite("me", STORY, {FIRST: "Rain."})
    await store.mark("me", STORY, FIRST, favourite=True)
    assert (await store.undo("me", STORY)).head_id == SECOND
    await store.close()
