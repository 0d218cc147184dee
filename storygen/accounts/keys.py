"""Keys: with what programs ask for a user. A key is shown once; what is kept is its hash."""

import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import sqlalchemy as sa

from storygen.accounts.sign_ins import hash_of
from storygen.accounts.users import User, Users, as_user
from storygen.errors import AccountError, StorygenError
from storygen.story.database import Database
from storygen.story.schema import api_keys, users

PREFIX: Final = "sg-"
NOBODY: Final = ""  # the id that the installation's own key has for a user's
KEY_BYTES = 32
ID_DIGITS = 12  # of the hash: enough to tell keys apart, and no help in making one
LONGEST_LABEL = 80
NOTED_EVERY = timedelta(minutes=1)


@dataclass(frozen=True)
class Key:
    """What is known of a key."""

    id: str
    user: str  # the name
    label: str
    created_at: datetime
    used_at: datetime | None


class Keys:
    """The keys of a database, and one of the installation's own, where it has one."""

    _database: Database

    def __init__(self, database: Database | None = None, own: str = "") -> None:
        """Without a database until open() there is the one key alone, which is nobody's: with it
        a chat asks for all its users."""
        self._own = hash_of(own) if own else ""
        self._has_database = False
        if database is not None:
            self.open(database)

    def open(self, database: Database) -> None:
        """Begin to look keys up."""
        self._database, self._has_database = database, True

    async def add(self, name: str, label: str = "") -> str:
        """A new key of a user, by name; raises AccountError."""
        if len(label) > LONGEST_LABEL or not (label.isprintable()):
            raise AccountError(
                f"{label[:LONGEST_LABEL]!r} is no name for a key: up to {LONGEST_LABEL} characters "
                "that can be seen are one."
            )
        user = await Users(self._database).user(name)
        key = PREFIX + secrets.token_urlsafe(KEY_BYTES)
        row = {"key_hash": hash_of(key), "user_id": user.id, "label": label}
        async with self._database.write() as connection:
            await connection.execute(api_keys.insert().values(row | {"created_at": _now()}))
        return key

    async def user(self, key: str) -> User | None:
        """Whose key it is, None for one that nobody may use (any more). It takes as long."""
        key_hash, now = hash_of(key), _now()
        if hmac.compare_digest(key_hash, self._own):
            return User(NOBODY, "", is_admin=False, created_at=now, disabled_at=None)
        if not self._has_database:
            return None
        query = sa.select(users, api_keys.c.used_at).join(
            api_keys, api_keys.c.user_id == users.c.id
        )
        query = query.where(api_keys.c.key_hash == key_hash, users.c.disabled_at.is_(None))
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        if row is None:
            return None
        if row["used_at"] is None or row["used_at"] < now - NOTED_EVERY:
            await self._note_use(key_hash, now)
        return as_user(row)

    async def keys(self) -> list[Key]:
        """All of them, by user and age."""
        query = sa.select(api_keys, users.c.name).join(users, api_keys.c.user_id == users.c.id)
        query = query.order_by(users.c.known_as, api_keys.c.created_at)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings()
            return [
                Key(r["key_hash"][:ID_DIGITS], r["name"], r["label"], r["created_at"], r["used_at"])
                for r in rows
            ]

    async def count(self) -> int:
        """How many there are."""
        async with self._database.read() as connection:
            query = sa.select(sa.func.count()).select_from(api_keys)
            return (await connection.execute(query)).scalar_one()

    async def revoke(self, id: str) -> None:
        """Let nobody in by it again, at once; raises AccountError where there is none."""
        of_it = sa.func.substr(api_keys.c.key_hash, 1, ID_DIGITS) == id
        async with self._database.write() as connection:
            ended = await connection.execute(api_keys.delete().where(of_it))
        if not ended.rowcount:
            raise AccountError(
                f"There is no key {id[:40]!r}; `python -m storygen keys list` names all."
            )

    async def _note_use(self, key_hash: str, now: datetime) -> None:
        of_it = api_keys.c.key_hash == key_hash
        try:
            async with self._database.write() as connection:
                await connection.execute(api_keys.update().where(of_it).values(used_at=now))
        except StorygenError:  # the database takes nothing just now: that is no reason to refuse
            return


def _now() -> datetime:
    return datetime.now(UTC)
