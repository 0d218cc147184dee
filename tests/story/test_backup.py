"""Backups: whole whatever is written meanwhile, put back whole, and refused for what is none."""

import asyncio
import json
import os
import signal
import stat
import sys
import zipfile
from pathlib import Path

import pytest

from storygen.accounts.keys import Keys
from storygen.accounts.sign_ins import SignIns, hash_of
from storygen.accounts.users import Users
from storygen.errors import StoryError
from storygen.story import database as module
from storygen.story.backup import back_up, restore
from storygen.story.database import Database
from storygen.story.store import StoryStore
from tests.story.postgres import Server

ME = "me"
ROOT = Path(__file__).parents[2]

# A program that has the stories until it is told that there is nothing more to read.
RUNS = """
import asyncio, sys
from storygen.story.database import Database
from storygen.story.store import StoryStore
async def main(url):
    store = await StoryStore.open(url)
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await store.close()
asyncio.run(main(sys.argv[1]))
"""


async def told(url: str, *texts: str) -> str:
    """The id of a new story of these passages."""
    store = await StoryStore.open(url)
    story = await store.create_story(ME)
    for text in texts:
        await store.add_passage(ME, story.id, "writer", text)
    await store.close()
    return story.id


async def read(url: str, story_id: str) -> list[str]:
    store = await StoryStore.open(url)
    try:
        return [passage.text for passage in (await store.tree(ME, story_id)).branch()]
    finally:
        await store.close()


async def test_a_backup_made_while_writing_has_all_that_was_acknowledged(
    url: str, tmp_path: Path
) -> None:
    store = await StoryStore.open(url)
    story = await store.create_story(ME)
    acknowledged: list[str] = []
    enough, stop = asyncio.Event(), asyncio.Event()

    async def write() -> None:
        while not stop.is_set():
            n = len(acknowledged)
            added = await store.add_passage(ME, story.id, "writer", f"{n}")
            acknowledged.append(added.text)
            if n == 20:
                enough.set()

    writing = asyncio.create_task(write())
    await enough.wait()
    before = list(acknowledged)
    await asyncio.to_thread(asyncio.run, back_up(url, tmp_path / "backup"))
    stop.set()
    await writing
    await store.add_passage(ME, story.id, "writer", "after")
    await store.close()
    old = await restore(url, tmp_path / "backup")
    found = await read(url, story.id)
    assert found[: len(before)] == before
    assert found == [f"{n}" for n in range(len(found))]
    assert old  # what was there is named


# The command, told as soon as what is to be packed is there.
ENDED = """
import os, signal, sys, zipfile
from storygen.story import backup
sha256 = backup.sha256
def ended(path):
    assert path.is_file()
    os.kill(os.getpid(), int(sys.argv[1]))
    return sha256(path)
backup.sha256 = ended
from storygen.cli import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("command", ["backup", "restore"])
async def test_a_command_that_is_ended_leaves_no_copy(
    sqlite_url: str, tmp_path: Path, command: str, kind: signal.Signals
) -> None:
    """A copy of everything, whole and readable, stayed for ever."""
    story_id, backup = await told(sqlite_url, "Rain"), tmp_path / "backup"
    if command == "restore":
        await back_up(sqlite_url, backup)
    folder = backup.parent if command == "backup" else tmp_path / "data"
    there = set(folder.iterdir())
    environment = os.environ | {"STORYGEN_DATABASE_URL": sqlite_url, "PYTHONPATH": str(ROOT)}
    arguments = ("-c", ENDED, str(int(kind)), command, str(backup))
    ended = await asyncio.create_subprocess_exec(sys.executable, *arguments, env=environment)
    is_killed = kind == signal.SIGKILL
    assert await ended.wait() == (-9 if is_killed else 128 + kind)
    left = set(folder.iterdir()) - there
    assert len(left) == is_killed
    assert await read(sqlite_url, story_id) == ["Rain"]
    if command == "backup":  # by its next run, whatever file it is for
        await back_up(sqlite_url, tmp_path / "another")
        there.add(tmp_path / "another")
    else:
        there.add(Path(await restore(sqlite_url, backup)))
    assert set(folder.iterdir()) == there


async def test_where_there_is_no_database_none_is_made(sqlite_url: str, tmp_path: Path) -> None:
    """A wrong data directory was given an empty database, which was backed up with success."""
    with pytest.raises(StoryError, match="There is no story database"):
        await back_up(sqlite_url, tmp_path / "backup")
    assert os.listdir(tmp_path) == []


async def test_in_a_server_without_stories_no_table_is_made(
    postgresql: Server, tmp_path: Path
) -> None:
    url = postgresql.new_database()
    with pytest.raises(StoryError, match="has no stories in it, so nothing is backed up"):
        await back_up(url, tmp_path / "backup")
    assert os.listdir(tmp_path) == []
    database = Database.as_it_is(url)
    async with database.read() as connection:
        made = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        assert (await connection.exec_driver_sql(made)).all() == []
    await database.close()


@pytest.mark.parametrize("content", [b"", b"Once upon a time. " * 100])
async def test_a_file_that_holds_no_stories_is_no_backup(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "stories.db"
    file.write_bytes(content)
    with pytest.raises(StoryError, match=r"stories\.db (has no stories|cannot be copied)"):
        await back_up(f"sqlite+aiosqlite:///{file}", tmp_path / "backup")
    assert file.read_bytes() == content
    assert not (tmp_path / "backup").exists()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_an_older_schema_is_backed_up_as_it_is(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    """New code backs up before an update, while the old page runs on the old schema."""
    if kind == "postgresql":
        url = request.getfixturevalue("postgresql").new_database()
    else:
        url = request.getfixturevalue("sqlite_url")
    with monkeypatch.context() as patch:  # the program as it was before
        upgrade = module.command.upgrade
        patch.setattr(module.command, "upgrade", lambda config, _: upgrade(config, "0002"))
        old = await Database.open(url)
    columns = "id, owner, title, settings, passage_count, head_number, created_at, updated_at"
    values = "'a', 'me', 'Fog', '{}', 0, 0, '2026-01-02 03:04:05.0', '2026-01-02 03:04:05.0'"
    async with old.write() as connection:
        await connection.exec_driver_sql(f"INSERT INTO stories ({columns}) VALUES ({values})")
    manifest = await back_up(url, tmp_path / "backup")
    assert (manifest["schema"], manifest["stories"]) == ("0002", 1)
    async with old.read() as connection:
        found = await connection.exec_driver_sql("SELECT version_num FROM alembic_version")
        assert found.scalar_one() == "0002"
    await old.close()
    await restore(url, tmp_path / "backup")
    store = await StoryStore.open(url)
    assert [story.title for story in await store.stories(ME)] == ["Fog"]
    await store.close()


async def test_what_was_there_is_kept_beside(sqlite_url: str, tmp_path: Path) -> None:
    story_id = await told(sqlite_url, "Rain")
    await back_up(sqlite_url, tmp_path / "backup")
    later = await told(sqlite_url, "Snow")
    old = await restore(sqlite_url, tmp_path / "backup")
    assert await read(sqlite_url, story_id) == ["Rain"]
    with pytest.raises(StoryError, match="no story"):
        await read(sqlite_url, later)
    assert await read(f"sqlite+aiosqlite:///{old}", later) == ["Snow"]


async def test_nothing_is_restored_while_a_program_runs(url: str, tmp_path: Path) -> None:
    await told(url, "Rain")
    await back_up(url, tmp_path / "backup")
    later = await told(url, "Snow")
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", RUNS, url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert program.stdout is not None
    assert await program.stdout.readline() == b"open\n"
    with pytest.raises(StoryError, match=r"(is|are) in use by"):
        await restore(url, tmp_path / "backup")
    await program.communicate(b"")
    assert program.returncode == 0
    assert await read(url, later) == ["Snow"]


async def test_nobody_is_signed_in_by_a_backup(url: str, tmp_path: Path) -> None:
    store = await StoryStore.open(url)
    await Users(store.database).add("ann", "a long password")
    token = await SignIns(store.database).begin("ann", "a long password")
    key = await Keys(store.database).add("ann")
    await store.close()
    await back_up(url, tmp_path / "backup")
    await restore(url, tmp_path / "backup")
    store = await StoryStore.open(url)
    assert await SignIns(store.database).user(hash_of(token)) is None
    assert await Keys(store.database).user(key) is None
    assert await SignIns(store.database).begin("ann", "a long password")
    await store.close()


async def test_what_was_restored_is_for_this_user_alone(sqlite_url: str, tmp_path: Path) -> None:
    await told(sqlite_url, "Rain")
    await back_up(sqlite_url, tmp_path / "backup")
    await restore(sqlite_url, tmp_path / "backup")
    path = Path(sqlite_url.removeprefix("sqlite+aiosqlite:///"))
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def altered(source: Path, name: str, content: bytes) -> None:
    """A backup with another content under a name."""
    with zipfile.ZipFile(source) as archive:
        parts = {part: archive.read(part) for part in archive.namelist()}
    with zipfile.ZipFile(source, "w") as archive:
        for part, old in (parts | {name: content}).items():
            archive.writestr(part, content if part == name else old)


async def test_foreign_changed_and_newer_files_are_refused_and_change_nothing(
    sqlite_url: str, tmp_path: Path
) -> None:
    story_id = await told(sqlite_url, "Rain")
    backup = tmp_path / "backup"
    await back_up(sqlite_url, backup)
    whole = backup.read_bytes()
    with zipfile.ZipFile(backup) as archive:
        manifest, database = json.loads(archive.read("manifest.json")), archive.read("database")

    async def refused(sentence: str) -> None:
        with pytest.raises(StoryError, match=sentence):
            await restore(sqlite_url, backup)
        assert await read(sqlite_url, story_id) == ["Rain"]

    backup.write_bytes(b"Once upon a time")
    await refused("is no backup of storygen")
    backup.write_bytes(whole[:-200])
    await refused("is no backup of storygen")
    middle = len(whole) // 2
    backup.write_bytes(whole[:middle] + bytes(200) + whole[middle + 200 :])
    await refused("is no backup of storygen")
    backup.write_bytes(whole)
    altered(backup, "database", database[:-1] + b"!")
    await refused("was changed since it was made")
    for changed in ({"format": 2}, {"schema": "9999"}):
        backup.write_bytes(whole)
        altered(backup, "manifest.json", json.dumps(manifest | changed).encode())
        await refused("newer storygen")
    backup.write_bytes(whole)
    altered(backup, "manifest.json", json.dumps(manifest | {"kind": "postgresql"}).encode())
    await refused("is a backup of postgresql")
    with pytest.raises(StoryError, match="is there already"):
        await back_up(sqlite_url, backup)
