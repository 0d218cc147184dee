"""Sign-ins: the browsers that somebody is signed in with, each by a secret that only it has."""

import hashlib
import secrets
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Final

import sqlalchemy as sa

from storygen.accounts import passwords
from storygen.accounts.users import User, as_user, known_as
from storygen.errors import StorygenError
from storygen.story.database import Database
from storygen.story.schema import sign_ins, users

UNUSED: Final = timedelta(hours=12)  # for an evening's writing and the night after it
LONGEST: Final = timedelta(days=7)  # however often it is used
TOKEN_BYTES = 32


class SignIns:
    """The sign-ins of a database, by the hash of the secret that the browser was given."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen: dict[str, datetime] = {}  # since the last note_seen

    async def begin(self, name: str, password: str) -> str | None:
        """The secret of a new sign-in; None for a wrong name or password, which take as long.

        Raises AccountError when too many are trying.
        """
        query = sa.select(users).where(users.c.known_as == known_as(name))
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        kept = row["password_hash"] if row else None
        if not await passwords.matches(kept, password) or row is None:
            return None
        token, now = secrets.token_urlsafe(TOKEN_BYTES), datetime.now(UTC)
        added = {"token_hash": hash_of(token), "user_id": row["id"]}
        async with self._database.write() as connection:
            same = (users.c.id == row["id"]) & (users.c.password_hash == kept)
            still = await connection.execute(query.where(same, users.c.disabled_at.is_(None)))
            if still.first() is None:  # changed or disabled while it was tried
                return None
            await connection.execute(sign_ins.delete().where(sa.not_(_living(now))))
            await connection.execute(
                sign_ins.insert().values(added | {"created_at": now, "seen_at": now})
            )
        return token

    async def user(self, token_hash: str) -> User | None:
        """Who is signed in by it, None when nobody is (any more)."""
        now = datetime.now(UTC)
        query = sa.select(users).join(sign_ins, sign_ins.c.user_id == users.c.id)
        query = query.where(sign_ins.c.token_hash == token_hash, *_open(now))
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        if row is None:
            return None
        self._seen[token_hash] = now
        return as_user(row)

    async def living(self, token_hashes: Collection[str]) -> set[str]:
        """Those that somebody is signed in by."""
        query = sa.select(sign_ins.c.token_hash).join(users, sign_ins.c.user_id == users.c.id)
        query = query.where(sign_ins.c.token_hash.in_(token_hashes), *_open(datetime.now(UTC)))
        async with self._database.read() as connection:
            return set((await connection.execute(query)).scalars())

    async def end(self, token_hash: str) -> None:
        """Let nobody in by it again."""
        self._seen.pop(token_hash, None)
        async with self._database.write() as connection:
            await connection.execute(sign_ins.delete().where(sign_ins.c.token_hash == token_hash))

    async def note_seen(self) -> None:
        """Write down who was here since the last time; now and then is enough."""
        seen, self._seen = self._seen, {}
        if not seen:
            return
        try:
            async with self._database.write() as connection:
                for token_hash, moment in seen.items():
                    of_it = sign_ins.c.token_hash == token_hash
                    await connection.execute(sign_ins.update().where(of_it).values(seen_at=moment))
        except StorygenError:  # the database is away: the next time, then
            self._seen = seen | self._seen
            raise


def hash_of(token: str) -> str:
    """What is kept of a secret. It is random, so a plain hash tells nothing about it."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _living(now: datetime) -> sa.ColumnElement[bool]:
    return (sign_ins.c.seen_at > now - UNUSED) & (sign_ins.c.created_at > now - LONGEST)


def _open(now: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return _living(now), users.c.disabled_at.is_(None)
