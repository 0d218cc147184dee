import asyncio
import resource
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from storygen.errors import DatabaseError, StoryError
from storygen.story import database as database_module
from storygen.story.database import Database
from storygen.story.store import StoryStore
from tests.living import living_loop

ME = "me"


async def test_who_queued_for_a_database_that_is_away_is_refused_with_the_first(
    path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(database_module.PRAGMAS, "busy_timeout", ("1000", 1000))
    database = await Database.open(url)

    async def change() -> None:
        async with database.write():
            pass

    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        begun = time.monotonic()
        errors = await asyncio.gather(*(change() for _ in range(30)), return_exceptions=True)
        assert time.monotonic() - begun < 10  # one after another it would be 30 seconds
    assert all(isinstance(error, DatabaseError) for error in errors)
    await change()  # and who comes later tries anew
    await database.close()


@pytest.fixture
def url(sqlite_url: str) -> str:
    """What is said here is said of SQLite."""
    return sqlite_url


@pytest.fixture
def path(url: str) -> Path:
    return Path(url.removeprefix("sqlite+aiosqlite:///"))


async def told(store: StoryStore, *texts: str) -> str:
    """The id of a new story of these passages."""
    story = await store.create_story(ME)
    for text in texts:
        await store.add_passage(ME, story.id, "writer", text)
    return story.id


async def texts(store: StoryStore, story_id: str) -> list[str]:
    return [passage.text for passage in (await store.tree(ME, story_id)).branch()]


# Where it lies


async def test_a_new_database_and_its_folder_are_for_this_user_alone(
    store: StoryStore, path: Path
) -> None:
    await told(store, "Rain")
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    files = sorted(path.parent.iterdir())
    assert [f.name for f in files] == [
        "stories.db",
        "stories.db-in-use",
        "stories.db-shm",
        "stories.db-wal",
    ]
    assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600}


async def test_a_folder_that_is_there_keeps_its_mode(path: Path, url: str) -> None:
    path.parent.mkdir(mode=0o750)
    await (await StoryStore.open(url)).close()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750


async def test_a_relative_path_stays_where_it_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    store = await StoryStore.open("sqlite+aiosqlite:///50% of it/stories.db")
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = await asyncio.gather(*(store.stories(ME) for _ in range(3)))  # connections made anew
    assert found == [[], [], []]
    await store.close()
    assert (tmp_path / "50% of it" / "stories.db").stat().st_size > 0


def in_a_file(path: Path) -> None:
    path.parent.write_text("a file where the folder should be")


def a_folder(path: Path) -> None:
    path.mkdir(parents=True)


@pytest.mark.parametrize("obstacle", [in_a_file, a_folder])
async def test_a_place_that_cannot_be_written_is_named(
    path: Path, url: str, obstacle: Callable[[Path], None]
) -> None:
    obstacle(path)
    with pytest.raises(StoryError, match=rf"{path}: (File exists|Is a directory).*another folder"):
        await StoryStore.open(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "stories.db",
        "sqlite:///stories.db",
        "sqlite+aiosqlite://",
        "sqlite+aiosqlite:///:memory:",
        "nosql://host/db",
        "postgresql+nodriver://me:s3cret@host/db",
    ],
)
async def test_a_url_that_cannot_be_used_is_answered_with_one_that_can(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoryError, match=r"sqlite\+aiosqlite:///path/to/stories.db") as refused:
        await StoryStore.open(url)
    assert "s3cret" not in str(refused.value)


# How safely it writes


async def test_every_connection_is_set_to_lose_nothing(store: StoryStore, url: str) -> None:
    database = await Database.open(url)
    async with database.read() as one, database.read() as two, database.write() as three:
        for connection in (one, two, three):
            names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            rows = [await connection.exec_driver_sql(f"PRAGMA {name}") for name in names]
            assert [row.scalar_one() for row in rows] == ["wal", 2, 1, 5000]
    await database.close()


async def test_a_disk_that_cannot_keep_what_it_should_is_refused(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A network disk answers so: it keeps its old journal instead of WAL, without an error.
    monkeypatch.setitem(database_module.PRAGMAS, "journal_mode", ("DELETE", "wal"))
    with pytest.raises(StoryError, match=r"journal_mode is 'delete', not 'wal'.*local disk"):
        await StoryStore.open(url)


async def test_a_transaction_that_fails_leaves_nothing(store: StoryStore, url: str) -> None:
    database = await Database.open(url)

    async def fail_half_way() -> None:
        async with database.write() as connection:
            await connection.exec_driver_sql("CREATE TABLE half (done INTEGER)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_half_way()
    async with database.read() as connection:
        tables = (await connection.exec_driver_sql("SELECT name FROM sqlite_master")).scalars()
        assert "half" not in tables
    await database.close()


async def test_a_reader_sees_one_moment(store: StoryStore, url: str) -> None:
    story_id = await told(store, "Rain")
    database = await Database.open(url)
    count = "SELECT count(*) FROM passages"
    async with database.read() as connection:
        before = (await connection.exec_driver_sql(count)).scalar_one()
        await store.add_passage(ME, story_id, "writer", "Snow")
        assert (await connection.exec_driver_sql(count)).scalar_one() == before == 1
    await database.close()


# What its errors mean


def no_database(path: Path) -> str:
    path.write_bytes(b"Once upon a time. " * 1000)
    return r"cannot be used \(file is not a database\)\. Move the file away: a new one"


def a_page_overwritten(path: Path) -> str:
    whole = path.read_bytes()
    middle = len(whole) // 2 // 4096 * 4096
    path.write_bytes(whole[:middle] + b"\xff" * 4096 + whole[middle + 4096 :])
    return r"is damaged \(.*[Pp]age .*\)\. Move the file away to start anew"


def truncated(path: Path) -> str:
    path.write_bytes(path.read_bytes()[:-10_000])
    return r"cannot be used \(database disk image is malformed\)\. Move the file away to start anew"


def content(path: Path) -> bytes:
    return path.read_bytes()


@pytest.mark.parametrize("damage", [no_database, a_page_overwritten, truncated])
async def test_a_damaged_database_is_named_and_left_alone(
    path: Path, url: str, damage: Callable[[Path], str]
) -> None:
    store = await StoryStore.open(url)
    await told(store, *["Rain. " * 2000] * 10)
    await store.close()
    sentence = damage(path)
    damaged = content(path)
    with pytest.raises(StoryError, match=f"{path} {sentence}"):
        await StoryStore.open(url)
    assert content(path) == damaged


async def test_a_file_too_large_to_be_checked_at_every_start_is_opened_and_named(
    store: StoryStore, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await told(store, "Rain")
    monkeypatch.setattr(database_module, "CHECK_SECONDS", -1.0)
    monkeypatch.setattr(database_module, "CHECK_STEPS", 1)
    await (await Database.open(url)).close()
    assert "only part of it was checked for damage" in caplog.text


async def test_a_database_of_a_newer_storygen_is_refused(path: Path, url: str) -> None:
    await (await StoryStore.open(url)).close()
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoryError, match=r"newer storygen.*'9999'.*Update storygen"):
        await StoryStore.open(url)


async def test_a_held_database_is_said_to_be_busy_and_the_page_lives_on(
    path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(database_module.PRAGMAS, "busy_timeout", ("300", 300))
    store = await StoryStore.open(url)
    story_id = await told(store, "Rain")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with living_loop():
            refused = await asyncio.gather(
                store.add_passage(ME, story_id, "writer", "Snow"),
                store.rename(ME, story_id, "Snow"),
                StoryStore.open(url),
                return_exceptions=True,
            )
        for error, place in zip(refused, ("", "", f" {path}"), strict=True):  # who starts is told
            assert isinstance(error, StoryError)
            assert str(error) == (
                f"The story database{place} cannot be used (database is locked). "
                "Another program holds it: close that one and try again."
            )
        assert await texts(store, story_id) == ["Rain"]  # reading goes on
    await store.add_passage(ME, story_id, "writer", "Snow")
    assert await texts(store, story_id) == ["Rain", "Snow"]
    await store.close()


async def test_changes_do_not_queue_without_end(
    store: StoryStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "QUEUE_SECONDS", 0.05)
    database = await Database.open(url)
    async with database.write():
        with pytest.raises(StoryError, match="too busy to answer"):
            async with database.write():
                pass
    async with database.write():
        pass
    await database.close()


@pytest.fixture
def small_disk() -> Iterator[Callable[[int], None]]:
    """Sets how large a file may grow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_is_said_and_writing_goes_on_when_there_is_room(
    url: str, small_disk: Callable[[int], None]
) -> None:
    store = await StoryStore.open(url)
    story_id = await told(store, "Rain")
    small_disk(400_000)
    added = 0

    async def fill() -> None:
        nonlocal added
        while added < 100:
            await store.add_passage(ME, story_id, "writer", "x" * 20_000)
            added += 1

    with pytest.raises(StoryError, match=r"disk.*Nothing was saved"):
        await fill()
    assert len(await texts(store, story_id)) == 1 + added
    small_disk(resource.RLIM_INFINITY)
    await store.add_passage(ME, story_id, "writer", "Snow")
    assert (await texts(store, story_id))[-1] == "Snow"
    assert len(await texts(store, story_id)) == 2 + added
    await store.close()


async def test_messages_and_logs_do_not_quote_the_story(
    store: StoryStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    story_id = await told(store)
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("DROP TABLE passages")
    with pytest.raises(StoryError, match=r"\(no such table: passages\)") as failed:
        await store.add_passage(ME, story_id, "writer", "my secret")
    assert "my secret" not in str(failed.value) + str(failed.value.__cause__) + caplog.text
