"""Who writes what: how a passage that grows is told from one that a dead program left half done.

SQLite's file belongs to one running program. On PostgreSQL, which several share, each passage being
written is an advisory lock of its program's session: it goes when the program does, however. So is
each story that a turn is at work on.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import UUID

import sqlalchemy as sa
from filelock import FileLock, Timeout
from sqlalchemy.ext.asyncio import AsyncConnection

from storygen.errors import DatabaseError, StoryError
from storygen.story.database import Database

RUNNING: Final = 0x73746F72790002  # the advisory lock that every running program has a share of
CHANNEL: Final = "storygen"  # where the programs of a database hear of each other

Hear = Callable[[str], None]


class Claims(Protocol):
    """What this program writes, and what it tells the others that share its database."""

    is_shared: bool  # whether there may be others

    async def take(self, given_id: str) -> bool:
        """Claim a passage, before it is stored, or a story; False where another has it."""

    async def keep(self) -> None:
        """Make sure of what is claimed, where the server may have been restarted meanwhile."""

    async def let_go(self, given_id: str) -> None:
        """Claim it no longer, once it is complete."""

    async def tell(self, news: str) -> None:
        """Let the other programs hear something, if they can."""

    async def listen(self, hear: Hear) -> None:
        """Call hear with what other programs tell, from now on."""

    async def abandoned(self, connection: AsyncConnection, ids: Sequence[str]) -> list[str]:
        """Those of the passages that nobody writes. While connection's transaction lasts, nobody
        else is told so."""

    async def close(self) -> None:
        """Let go of everything."""


async def claims_on(database: Database) -> Claims:
    """The claims of a program that begins to use a database; StoryError if it must not."""
    if database.file is not None:
        return SoleUse(database.file)
    shared = SharedClaims(database)
    await shared.keep()
    return shared


def claim_file(file: Path) -> FileLock:
    """Have an SQLite file to ourselves until the lock is released or the process ends, however.

    A second call in one process has the same lock.
    """
    path = file.with_name(f"{file.name}-in-use")
    lock = FileLock(path, mode=0o600, blocking=False, is_singleton=True, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise StoryError(
            f"The stories in {file} are in use by another storygen. Go to its page, or close it."
        ) from error
    except OSError as error:
        raise StoryError(
            f"{path} cannot be locked: {error.strerror}. Let this user write there."
        ) from error
    return lock


class SoleUse:
    """Nobody else writes: whatever is unfinished and not claimed here was abandoned."""

    is_shared = False

    def __init__(self, file: Path) -> None:
        self._lock = claim_file(file)
        self._held: set[str] = set()

    async def take(self, given_id: str) -> bool:
        """Note it: nobody else could have it."""
        self._held.add(given_id)
        return True

    async def keep(self) -> None:
        """Nothing to do: the file is ours, and all in it."""

    async def let_go(self, given_id: str) -> None:
        """Note it no longer."""
        self._held.discard(given_id)

    async def tell(self, news: str) -> None:
        """Nobody is there to hear it."""

    async def listen(self, hear: Hear) -> None:
        """Nobody is there to tell anything."""

    async def abandoned(self, connection: AsyncConnection, ids: Sequence[str]) -> list[str]:
        """All that are not claimed here."""
        return [given_id for given_id in ids if given_id not in self._held]

    async def close(self) -> None:
        """Let the next program have the file."""
        self._lock.release()


class SharedClaims:
    """Advisory locks of a session that lives as long as the program does."""

    is_shared = True

    def __init__(self, database: Database) -> None:
        self._database = database
        self._held: set[str] = set()
        self._hear: Hear | None = None
        self._session: AsyncConnection | None = None
        self._turn = asyncio.Lock()

    async def take(self, given_id: str) -> bool:
        """Lock it, if nobody else has."""
        is_ours: bool = await self._ask(sa.func.pg_try_advisory_lock(_key(given_id)))
        if is_ours:
            self._held.add(given_id)
        return is_ours

    async def keep(self) -> None:
        """Lock everything anew if the session was lost."""
        async with self._turn:
            await self._connected()

    async def let_go(self, given_id: str) -> None:
        """Unlock it. A session that is lost has let go already."""
        self._held.discard(given_id)
        with contextlib.suppress(StoryError):
            await self._ask(sa.func.pg_advisory_unlock(_key(given_id)))

    async def tell(self, news: str) -> None:
        """Notify whoever listens at this moment. It is a courtesy: nothing depends on it."""
        with contextlib.suppress(StoryError):
            await self._ask(sa.func.pg_notify(CHANNEL, news))

    async def listen(self, hear: Hear) -> None:
        """Also in sessions to come, where this one is lost."""
        async with self._turn:
            session = await self._connected()
            self._hear = hear
            with self._database.errors_as_sentences():
                await self._listen_in(session)

    async def abandoned(self, connection: AsyncConnection, ids: Sequence[str]) -> list[str]:
        """Those whose lock can be had for a moment."""
        free = []
        for passage_id in ids:
            ask = sa.select(sa.func.pg_try_advisory_xact_lock(_key(passage_id)))
            if passage_id not in self._held and (await connection.execute(ask)).scalar_one():
                free.append(passage_id)
        return free

    async def close(self) -> None:
        """Unlock everything now: a server notices that a connection has ended a little later."""
        self._held.clear()
        if self._session is None:
            return
        with contextlib.suppress(DatabaseError), self._database.errors_as_sentences():
            await self._session.exec_driver_sql("SELECT pg_advisory_unlock_all()")
        await self._session.close()
        self._session = None

    async def _ask(self, function: sa.FunctionElement[Any]) -> Any:
        async with self._turn:
            session = await self._connected()
            with self._database.errors_as_sentences():
                return (await session.execute(sa.select(function))).scalar_one()

    async def _connected(self) -> AsyncConnection:
        """The session, with everything locked in it that this program writes."""
        if self._session is not None:
            if await _is_open(self._session):
                return self._session
            await self._session.invalidate()
            await self._session.close()
            self._session = None
        session = await self._database.session()
        try:
            with self._database.errors_as_sentences():
                await self._lock_all(session)
                await self._listen_in(session)
        except BaseException:
            await session.close()
            raise
        self._session = session
        return session

    async def _lock_all(self, session: AsyncConnection) -> None:
        share = sa.select(sa.func.pg_try_advisory_lock_shared(RUNNING))
        if not (await session.execute(share)).scalar_one():
            raise StoryError(
                f"{self._database.place} is being restored: start again when that is done."
            )
        for given_id in self._held:
            await session.execute(sa.select(sa.func.pg_try_advisory_lock(_key(given_id))))

    async def _listen_in(self, session: AsyncConnection) -> None:
        if self._hear is None:
            return
        driver: Any = (await session.get_raw_connection()).driver_connection
        hear = self._hear

        def told(connection: Any, pid: int, channel: str, news: str) -> None:
            if pid != connection.get_server_pid():
                hear(news)

        await driver.add_listener(CHANNEL, told)


async def _is_open(session: AsyncConnection) -> bool:
    """Whether a session still has its locks; one that a statement has found broken has none."""
    if session.invalidated or session.closed:
        return False
    driver = (await session.get_raw_connection()).driver_connection
    return driver is not None and not driver.is_closed()


def _key(given_id: str) -> int:
    """An advisory lock's number: the first half of the UUID."""
    return int.from_bytes(UUID(given_id).bytes[:8], "big", signed=True)
