"""The database behind the stories: where it lies, how safely it writes, who may change it.

SQLite through aiosqlite, whose work is done on threads of its own, never on the event loop;
PostgreSQL through asyncpg, for when several programs share the stories.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from storygen.errors import DatabaseError, StoryError
from storygen.files import sync
from storygen.metrics import DATABASE_WRITE, timed
from storygen.story.remedies import DAMAGED, remedy, words

BUSY_MS = 5000  # how long a change waits for another program to let go
RETRY_SECONDS = 0.02  # until another program, or a thread, may have done what is waited for
QUEUE_SECONDS = 15.0  # how long a change waits for those of this program before it
KEPT_OPEN = 8  # connections to SQLite; four times as many in a rush, a thread each
CHECK_SECONDS = 10.0  # how long a start may look for damage: some GB
CHECK_STEPS = 100_000  # of SQLite between two looks at the clock: milliseconds
NOTED_SECONDS = 10.0  # between two lines in the log about a database that cannot be used

# With synchronous FULL a commit has reached the disk when it returns, even if the power fails then.
# name: (value to set, what reading it back must give)
PRAGMAS: dict[str, tuple[str, object]] = {
    "busy_timeout": (str(BUSY_MS), BUSY_MS),
    "journal_mode": ("WAL", "wal"),
    "synchronous": ("FULL", 2),
    "foreign_keys": ("ON", 1),
}

# The same promises of PostgreSQL, whatever the server's own settings; and a program that is gone
# without a word is noticed within a minute, so that what it left can be settled.
SESSION: Final = {
    "application_name": "storygen",
    "synchronous_commit": "on",
    "lock_timeout": f"{BUSY_MS}",
    "idle_in_transaction_session_timeout": "60000",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "timezone": "UTC",
}
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 30.0  # how long a server may take over one statement
MIGRATING: Final = 0x73746F72790001  # the advisory lock of whoever brings the schema up to date

logger = logging.getLogger(__name__)


class Database:
    """Transactions on one database, with its errors as sentences.

    One that is served tells its errors to writers, and where it lies, and who it says that we are,
    to the log alone.
    """

    def __init__(self, engine: AsyncEngine, *, is_served: bool = False) -> None:
        self._engine, self._is_served = engine, is_served
        self.is_shared = engine.dialect.name == "postgresql"  # with other programs that write
        if self.is_shared:
            self._writer = engine.execution_options(isolation_level="READ COMMITTED")
            self._reader = engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        else:
            self._writer = engine.execution_options(begin="BEGIN IMMEDIATE")
            self._reader = engine
        # Changes queue here in order of arrival; the database would let chance decide who is next.
        self._turn = asyncio.Lock()
        self._away: Exception | None = None  # why the last transaction could not be begun
        self._noted = -NOTED_SECONDS  # when the log was last told that it cannot be used
        self.place = place_of(engine.url)

    @classmethod
    async def open(cls, url: str, *, is_served: bool = False) -> "Database":
        """A checked database of the newest schema, made where there is none."""
        first = cls(_engine(url, answer_within=None))  # a migration takes as long as it takes
        try:
            await first._connect()
            await first._check()
            await first._migrate()
        finally:
            await first.close()
        return cls(_engine(url), is_served=is_served)

    @classmethod
    def as_it_is(cls, url: str) -> "Database":
        """A database that is neither checked nor changed, for who only wants a look at it."""
        return cls(_engine(url))

    @property
    def file(self) -> Path | None:
        """Where SQLite keeps it."""
        return None if self.is_shared else Path(str(self._engine.url.database))

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection that sees the database as it is now, whatever changes meanwhile."""
        with self.errors_as_sentences():
            async with self._reader.begin() as connection:
                yield connection

    async def session(self) -> AsyncConnection:
        """A connection for as long as one likes, each of whose statements is done at once."""
        with self.errors_as_sentences():
            connection = await self._engine.connect()
            return await connection.execution_options(isolation_level="AUTOCOMMIT")

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction: on the disk when the block ends, undone when it ends in an error.

        Where none can be begun, whoever queued meanwhile is refused as well, instead of finding
        out one after another.
        """
        with self.errors_as_sentences(), timed(DATABASE_WRITE):
            away = self._away
            async with asyncio.timeout(QUEUE_SECONDS):
                await self._turn.acquire()
            try:
                if self._away not in (away, None):
                    raise self._away.with_traceback(None)
                async with AsyncExitStack() as stack:
                    try:
                        connection = await stack.enter_async_context(self._writer.begin())
                        self._away = None
                    except Exception as error:
                        self._away = error
                        raise
                    yield connection
            finally:
                self._turn.release()

    async def _connect(self) -> None:
        """Connect once, however many programs do at this moment to a file that is new.

        SQLite does not wait, whatever its busy_timeout, where two change a file's journal at once.
        """
        deadline = time.monotonic() + BUSY_MS / 1000
        with self.errors_as_sentences():
            while True:
                try:
                    async with self._engine.connect():
                        return
                except sa.exc.OperationalError as error:
                    if not _name_of(error).startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                        raise
                await asyncio.sleep(RETRY_SECONDS)

    async def _check(self) -> None:
        """Raise StoryError where SQLite finds its file damaged.

        A very large file is only looked at for CHECK_SECONDS: a start must not take minutes.
        """
        if self.is_shared:
            return
        deadline = time.monotonic() + CHECK_SECONDS
        async with self.read() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None
            await driver.set_progress_handler(lambda: time.monotonic() > deadline, CHECK_STEPS)
            try:
                answer = await connection.exec_driver_sql("PRAGMA quick_check(1)")
                found = answer.scalar_one()
            except sa.exc.OperationalError as error:
                if _name_of(error) != "SQLITE_INTERRUPT":
                    raise
                logger.warning(
                    "%s is large: only part of it was checked for damage. Check all of it with: "
                    "sqlite3 %s 'PRAGMA integrity_check'",
                    self.place,
                    self.file,
                )
                return
            finally:
                await driver.set_progress_handler(None, 0)
        if found != "ok":
            raise StoryError(f"{self.place} is damaged ({found.splitlines()[-1]}). {DAMAGED}")

    async def _migrate(self) -> None:
        """Bring the schema up to date, if no other program does at this moment: then wait."""
        async with self.write() as connection:
            if self.is_shared:
                await connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
                await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATING})")
            await connection.run_sync(_upgrade, self.place)

    @contextmanager
    def errors_as_sentences(self) -> Iterator[None]:
        """Raise what a driver raises as DatabaseError, in words for a person."""
        try:
            yield
        except TimeoutError as error:
            raise self._error("is too busy to answer", "Try again later.") from error
        except (sa.exc.DBAPIError, sa.exc.TimeoutError, OSError) as error:
            # The driver's own words: SQLAlchemy's would quote the statement.
            reason = getattr(error, "orig", None) or error
            raise self._error("cannot be used", remedy(reason), words(reason)) from error

    def _error(self, trouble: str, way_out: str, said: str = "") -> DatabaseError:
        """An error for whoever reads it; `said` is the driver's, and a server's names hosts."""
        reason = f" ({said})" if said else ""
        if not self._is_served:
            return DatabaseError(f"{self.place} {trouble}{reason}. {way_out}")
        if time.monotonic() > self._noted + NOTED_SECONDS:
            self._noted = time.monotonic()
            logger.warning("%s %s%s.", self.place, trouble, reason)
        told = "" if self.is_shared else reason
        return DatabaseError(f"The story database {trouble}{told}. {way_out}")


def _engine(url: str, answer_within: float | None = ANSWER_SECONDS) -> AsyncEngine:
    """An engine for url; for SQLite its file exists, readable by this user alone if it is new."""
    options: dict[str, Any] = {}
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() == "sqlite":
            if parsed.database in (None, "", ":memory:"):
                raise sa.exc.ArgumentError("stories need a file")
            parsed = parsed.set(database=str(_made(Path(parsed.database))))
            options = {"pool_size": KEPT_OPEN, "max_overflow": 3 * KEPT_OPEN}
        else:
            options = _to_a_server(answer_within)
        engine = create_async_engine(parsed, hide_parameters=True, **options)
    except (sa.exc.ArgumentError, sa.exc.InvalidRequestError, ModuleNotFoundError) as error:
        raise StoryError(
            f"The story database URL cannot be used ({str(error).splitlines()[0]}). Write "
            "sqlite+aiosqlite:///path/to/stories.db or postgresql+asyncpg://user@host/name."
        ) from error
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine.sync_engine, "connect", _set_pragmas)
        sa.event.listen(engine.sync_engine, "begin", _begin)
    return engine


def _to_a_server(answer_within: float | None) -> dict[str, Any]:
    """How to connect to a server that may be restarted, or gone, at any moment."""
    return {
        "pool_pre_ping": True,  # a connection that its server has closed is replaced unseen
        "pool_timeout": QUEUE_SECONDS,
        "connect_args": {
            "timeout": CONNECT_SECONDS,
            "command_timeout": answer_within,
            "server_settings": dict(SESSION),
        },
    }


async def ask(connection: AsyncConnection, query: sa.Select[Any]) -> sa.CursorResult[Any]:
    """What a query finds. It ends when nobody waits for it any more, though it may take minutes:
    asyncpg sees to that itself, but a thread of SQLite's would work on."""
    if connection.dialect.name == "postgresql":
        return await connection.execute(query)
    driver = (await connection.get_raw_connection()).driver_connection
    assert driver is not None
    work = asyncio.ensure_future(connection.execute(query))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():  # which the thread may only be about to begin
            await driver.interrupt()
            await asyncio.wait([work], timeout=RETRY_SECONDS)
        raise


def place_of(url: sa.URL) -> str:
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


def _name_of(error: sa.exc.DBAPIError) -> str:
    """SQLite's own name for what happened; empty for another database's error."""
    return getattr(error.orig, "sqlite_errorname", "")


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


def _upgrade(connection: sa.Connection, place: str) -> None:
    config = Config()
    config.set_main_option("script_location", "storygen.story:migrations")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StoryError(
            f"{place} was made by a newer storygen ({error}). Update storygen to open it."
        ) from error
