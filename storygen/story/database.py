"""The database behind the stories: where it lies, how safely it writes, what its errors mean.

SQLite through aiosqlite, whose work is done on threads of its own, never on the event loop.
PostgreSQL speaks the same SQL; only what is said of SQLite here does not apply to it.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from storygen.errors import StoryError
from storygen.files import sync

BUSY_MS = 5000  # how long SQLite waits for another program to let go
QUEUE_SECONDS = 15.0  # how long a change waits for those of this program before it

# With synchronous FULL a commit has reached the disk when it returns, even if the power fails then.
# name: (value to set, what reading it back must give)
PRAGMAS: dict[str, tuple[str, object]] = {
    "busy_timeout": (str(BUSY_MS), BUSY_MS),
    "journal_mode": ("WAL", "wal"),
    "synchronous": ("FULL", 2),
    "foreign_keys": ("ON", 1),
}

# What a writer can do, by the name of SQLite's error.
_REMEDIES = {
    "SQLITE_BUSY": "Another program holds it: close that one and try again.",
    "SQLITE_FULL": "Nothing was saved: make room on the disk and try again.",
    "SQLITE_IOERR": "Nothing was saved: see whether the disk is full or failing, then try again.",
    "SQLITE_READONLY": "Nothing was saved: let this user write the file and its folder.",
    "SQLITE_CANTOPEN": "Let this user read and write the file and its folder.",
    "SQLITE_CORRUPT": "Move the file away to start anew; sqlite3's .recover may save its stories.",
    "SQLITE_NOTADB": "Move the file away: a new one is made at the next start.",
}


class Database:
    """Transactions on one database, with its errors as sentences."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._writer = engine.execution_options(begin="BEGIN IMMEDIATE")
        # Changes queue here in order of arrival; SQLite itself would let chance decide who is next.
        self._turn = asyncio.Lock()
        self._place = _place(engine.url)

    @classmethod
    async def open(cls, url: str) -> "Database":
        """A checked database of the newest schema, made where there is none."""
        database = cls(_engine(url))
        try:
            await database._check()
            async with database.write() as connection:
                await connection.run_sync(_migrate, database._place)
        except BaseException:
            await database.close()
            raise
        return database

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection that sees the database as it is now, whatever changes meanwhile."""
        with self._errors_as_sentences():
            async with self._engine.begin() as connection:
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction: on the disk when the block ends, undone when it ends in an error."""
        with self._errors_as_sentences():
            async with asyncio.timeout(QUEUE_SECONDS):
                await self._turn.acquire()
            try:
                async with self._writer.begin() as connection:
                    yield connection
            finally:
                self._turn.release()

    async def _check(self) -> None:
        """Raise StoryError where SQLite finds its file damaged."""
        if self._engine.dialect.name != "sqlite":
            return
        async with self.read() as connection:
            found = (await connection.exec_driver_sql("PRAGMA quick_check(1)")).scalar_one()
        if found != "ok":
            finding, remedy = found.splitlines()[-1], _REMEDIES["SQLITE_CORRUPT"]
            raise StoryError(f"{self._place} is damaged ({finding}). {remedy}")

    @contextmanager
    def _errors_as_sentences(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise StoryError(f"{self._place} is too busy to answer. Try again later.") from error
        except (sa.exc.DBAPIError, sa.exc.TimeoutError, OSError) as error:
            # The driver's own words: SQLAlchemy's would quote the statement.
            reason = getattr(error, "orig", None) or error
            name = getattr(reason, "sqlite_errorname", "")
            remedy = next((r for n, r in _REMEDIES.items() if name.startswith(n)), "Try again.")
            raise StoryError(f"{self._place} cannot be used ({reason}). {remedy}") from error


def _engine(url: str) -> AsyncEngine:
    """An engine for url; for SQLite its file exists, readable by this user alone if it is new."""
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() == "sqlite":
            if parsed.database in (None, "", ":memory:"):
                raise sa.exc.ArgumentError("stories need a file")
            parsed = parsed.set(database=str(_made(Path(parsed.database))))
        engine = create_async_engine(parsed, hide_parameters=True)
    except (sa.exc.ArgumentError, sa.exc.InvalidRequestError, ModuleNotFoundError) as error:
        raise StoryError(
            f"The story database URL cannot be used ({str(error).splitlines()[0]}). Write "
            "sqlite+aiosqlite:///path/to/stories.db or postgresql+asyncpg://user@host/name."
        ) from error
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine.sync_engine, "connect", _set_pragmas)
        sa.event.listen(engine.sync_engine, "begin", _begin)
    return engine


def _place(url: sa.URL) -> str:
    """The database as a message names it, without a password."""
    place = url.database if url.get_backend_name() == "sqlite" else url.render_as_string()
    return f"The story database {place}"


def _made(path: Path) -> Path:
    """The absolute path of a file that now exists, in a folder that now exists."""
    path = path.expanduser().absolute()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        sync(path.parent)
    except OSError as error:
        raise StoryError(
            f"The stories cannot be kept in {path}: {error.strerror}. Let this user write there, "
            "or choose another folder."
        ) from error
    return path


def _set_pragmas(connection: Any, record: object) -> None:
    """Make a new connection safe, and see that it is: SQLite ignores what it cannot do."""
    connection.isolation_level = None  # transactions begin in _begin, not where Python guesses
    cursor = connection.cursor()
    for name, (value, expected) in PRAGMAS.items():
        cursor.execute(f"PRAGMA {name} = {value}")
        cursor.execute(f"PRAGMA {name}")
        found = cursor.fetchone()[0]
        if found != expected:
            raise StoryError(
                f"SQLite cannot keep stories safely here: {name} is {found!r}, not {expected!r}. "
                "Use a file on a local disk."
            )
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    """Start a transaction; one that will write takes its turn before it reads anything."""
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


def _migrate(connection: sa.Connection, place: str) -> None:
    config = Config()
    config.set_main_option("script_location", "storygen.story:migrations")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StoryError(
            f"{place} was made by a newer storygen ({error}). Update storygen to open it."
        ) from error
