"""Who writes what: how a passage that grows is told from one that a dead program left half done.

SQLite's file belongs to one running program. On PostgreSQL, which several share, each passage being
written is an advisory lock of its program's session: it goes when the program does, however.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol
from uuid import UUID

import sqlalchemy as sa
from filelock import FileLock, Timeout
from sqlalchemy.ext.asyncio import AsyncConnection

from storygen.errors import DatabaseError, StoryError
from storygen.story.database import Database

RUNNING: Final = 0x73746F72790002  # the advisory lock that every running program has a share of


class Claims(Protocol):
    """The passages that this program writes."""

    async def take(self, passage_id: str) -> None:
        """Claim a passage, before it is stored."""

    async def keep(self) -> None:
        """Make sure of what is claimed, where the server may have been restarted meanwhile."""

    async def let_go(self, passage_id: str) -> None:
        """Claim it no longer, once it is complete."""

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
    """Nobody else writes: whatever is unfinished when the file is opened was abandoned."""

    def __init__(self, file: Path) -> None:
        self._lock = claim_file(file)

    async def take(self, passage_id: str) -> None:
        """Nothing to do: the file is ours."""

    async def keep(self) -> None:
        """As above."""

    async def let_go(self, passage_id: str) -> None:
        """As above."""

    async def abandoned(self, connection: AsyncConnection, ids: Sequence[str]) -> list[str]:
        """All of them."""
        return list(ids)

    async def close(self) -> None:
        """Let the next program have the file."""
        self._lock.release()


class SharedClaims:
    """Advisory locks of a session that lives as long as the program does."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._held: set[str] = set()
        self._session: AsyncConnection | None = None
        self._turn = asyncio.Lock()

    async def take(self, passage_id: str) -> None:
        """Lock it."""
        await self._say("pg_try_advisory_lock", passage_id)
        self._held.add(passage_id)

    async def keep(self) -> None:
        """Lock everything anew if the session was lost."""
        async with self._turn:
            await self._connected()

    async def let_go(self, passage_id: str) -> None:
        """Unlock it. A session that is lost has let go already."""
        self._held.discard(passage_id)
        with contextlib.suppress(DatabaseError):
            await self._say("pg_advisory_unlock", passage_id)

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

    async def _say(self, function: str, passage_id: str) -> None:
        ask = sa.select(getattr(sa.func, function)(_key(passage_id)))
        async with self._turn:
            session = await self._connected()
            with self._database.errors_as_sentences():
                await session.execute(ask)

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
        for passage_id in self._held:
            await session.execute(sa.select(sa.func.pg_try_advisory_lock(_key(passage_id))))


async def _is_open(session: AsyncConnection) -> bool:
    """Whether a session still has its locks; one that a statement has found broken has none."""
    if session.invalidated or session.closed:
        return False
    driver = (await session.get_raw_connection()).driver_connection
    return driver is not None and not driver.is_closed()


def _key(passage_id: str) -> int:
    """An advisory lock's number: the first half of the UUID."""
    return int.from_bytes(UUID(passage_id).bytes[:8], "big", signed=True)
