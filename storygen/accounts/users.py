"""Users: who may write here. A user's id owns their stories and never changes."""

import unicodedata
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from storygen.accounts import passwords
from storygen.errors import AccountError
from storygen.story.database import Database
from storygen.story.purge import purge
from storygen.story.schema import api_keys, sign_ins, stories, users
from storygen.story.statements import UNFINISHED

LONGEST_NAME = 64


@dataclass(frozen=True)
class User:
    """Somebody who may write here."""

    id: str
    name: str
    is_admin: bool
    created_at: datetime
    disabled_at: datetime | None


@dataclass(frozen=True)
class Account:
    """A user in figures: all that an administrator sees."""

    user: User
    stories: int
    sign_ins: int
    seen_at: datetime | None


class Users:
    """The users of a database. What a method returns has reached the disk."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self, name: str, password: str | None, *, is_admin: bool = False, user_id: str | None = None
    ) -> User:
        """A new user.

        With the id of somebody who is no user (any more), the owner of their stories: so stories
        come to somebody else without a change to any of them.
        """
        name = checked_name(name)
        kept = None
        if password is not None:
            passwords.require_good(password, name)
            kept = await passwords.hashed(password)
        row = {
            "id": user_id or str(uuid.uuid4()),
            "name": name,
            "known_as": known_as(name),
            "password_hash": kept,
            "is_admin": is_admin,
            "created_at": datetime.now(UTC),
        }
        async with self._database.write() as connection:
            taken = users.c.known_as == row["known_as"]
            if await _exists(connection, taken):
                raise AccountError(f"There is a user {name!r} already: choose another name.")
            if await _exists(connection, users.c.id == row["id"]):
                raise AccountError("These stories belong to a user already, who keeps them.")
            left = (stories.c.owner == user_id) & (stories.c.head_number != UNFINISHED)
            if user_id is not None and not await _exists(connection, left):
                raise AccountError(f"There are no stories of {user_id[:40]!r} here to be taken.")
            added = await connection.execute(users.insert().values(row).returning(users))
            return as_user(added.mappings().one())

    async def user(self, name: str) -> User:
        """The user of this name, in whatever case; raises AccountError where there is none."""
        async with self._database.read() as connection:
            return await _user(connection, name)

    async def introduced(self, name: str) -> User | None:
        """The user whom a trusted proxy names, added when first seen; None for one who may not
        write here (any more).

        The name is taken exactly, for to who gave it another case or width may be another person.
        Raises AccountError for one that is not a user's but would be taken for it.
        """
        if name != checked_name(name):
            raise AccountError(
                f"{name[:LONGEST_NAME]!r} is not written as names are kept here: in Unicode's form "
                f"C, with single spaces, that would be {checked_name(name)!r}."
            )
        try:
            user = await self.user(name)
        except AccountError:
            user = await self._added_once(name)
        if user.name != name:
            raise AccountError(
                f"There is an account whose name differs from {name!r} in case, width or form "
                "alone, and may be another's. If it is yours, have it renamed: "
                "python -m storygen users rename"
            )
        return None if user.disabled_at else user

    async def accounts(self) -> list[Account]:
        """All users by name, in figures."""
        told = sa.func.count(sa.distinct(stories.c.id))
        query = (
            sa.select(
                users,
                told.label("stories"),
                sa.func.count(sa.distinct(sign_ins.c.token_hash)).label("sign_ins"),
                sa.func.max(sign_ins.c.seen_at).label("seen_at"),
            )
            .outerjoin(stories, (stories.c.owner == users.c.id) & stories.c.deleted_at.is_(None))
            .outerjoin(sign_ins, sign_ins.c.user_id == users.c.id)
            .group_by(users.c.id)
            .order_by(users.c.known_as)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings()
            return [
                Account(as_user(row), row["stories"], row["sign_ins"], row["seen_at"])
                for row in rows
            ]

    async def count(self) -> int:
        """How many there are."""
        async with self._database.read() as connection:
            query = sa.select(sa.func.count()).select_from(users)
            return (await connection.execute(query)).scalar_one()

    async def enabled(self, ids: Collection[str]) -> set[str]:
        """Those of these ids whose users may write here."""
        query = sa.select(users.c.id).where(users.c.id.in_(ids), users.c.disabled_at.is_(None))
        async with self._database.read() as connection:
            return set((await connection.execute(query)).scalars())

    async def set_password(self, name: str, password: str) -> None:
        """Another password, with which one has to sign in anew everywhere."""
        user = await self.user(name)
        passwords.require_good(password, user.name)
        await self._change(user, password_hash=await passwords.hashed(password))

    async def rename(self, name: str, new: str) -> User:
        """Another name for a user, whose stories, sessions and password stay."""
        new = checked_name(new)
        async with self._database.write() as connection:
            user = await _user(connection, name)
            taken = (users.c.known_as == known_as(new)) & (users.c.id != user.id)
            if await _exists(connection, taken):
                raise AccountError(f"There is a user {new!r} already: choose another name.")
            row = {"name": new, "known_as": known_as(new)}
            await connection.execute(users.update().where(users.c.id == user.id).values(row))
            return replace(user, name=new)

    async def set_admin(self, name: str, is_admin: bool) -> User:
        """Let a user see how the installation does, or not any more, from now on."""
        async with self._database.write() as connection:
            user = await _user(connection, name)
            of_user = users.c.id == user.id
            await connection.execute(users.update().where(of_user).values(is_admin=is_admin))
            return replace(user, is_admin=is_admin)

    async def disable(self, name: str) -> None:
        """Let nobody in by this name, and send out who is; the stories stay."""
        await self._change(await self.user(name), disabled_at=datetime.now(UTC))

    async def enable(self, name: str) -> None:
        """Let the user in again."""
        await self._change(await self.user(name), disabled_at=None)

    async def sign_out(self, name: str) -> int:
        """End every session of a user; how many there were."""
        async with self._database.write() as connection:
            return await _sign_out(connection, await _user(connection, name))

    async def remove(self, name: str, *, with_stories: bool) -> tuple[User, int]:
        """Remove a user; whom, and how many stories went too or are left behind under the id.

        Stories that go cannot be seen from then on, and go in small steps: others write meanwhile.
        """
        async with self._database.write() as connection:
            user = await _user(connection, name)
            await _sign_out(connection, user)
            await connection.execute(api_keys.delete().where(api_keys.c.user_id == user.id))
            await connection.execute(users.delete().where(users.c.id == user.id))
            owned = sa.select(stories.c.id).where(stories.c.owner == user.id)
            ids = (await connection.execute(owned)).scalars().all()
            if with_stories:
                hidden = {"head_number": UNFINISHED, "deleted_at": datetime.now(UTC)}
                await connection.execute(
                    stories.update().where(stories.c.owner == user.id).values(hidden)
                )
        for story_id in ids if with_stories else ():
            await purge(self._database.write, user.id, story_id)
        return user, len(ids)

    async def _added_once(self, name: str) -> User:
        try:
            return await self.add(name, None)
        except AccountError:  # another request of the same browser was first
            return await self.user(name)

    async def _change(self, user: User, **values: object) -> None:
        async with self._database.write() as connection:
            await connection.execute(users.update().where(users.c.id == user.id).values(values))
            await _sign_out(connection, user)


def checked_name(name: str) -> str:
    """A name as it is kept; raises AccountError for one that could not be read or typed."""
    name = unicodedata.normalize("NFC", " ".join(name.split()))
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        raise AccountError(
            f"{name[:LONGEST_NAME]!r} is no name of a user: "
            f"1 to {LONGEST_NAME} characters that can be seen are one."
        )
    return name


def known_as(name: str) -> str:
    """A name as names are compared: by whatever case and width it is typed in.

    >>> known_as("Ada ") == known_as("ADA")
    True
    """
    folded = unicodedata.normalize("NFKC", " ".join(name.split())).casefold()
    return unicodedata.normalize("NFKC", folded)


def as_user(row: Mapping[Any, Any]) -> User:
    """The user of a row."""
    names = ("id", "name", "is_admin", "created_at", "disabled_at")
    return User(*(row[name] for name in names))


async def _user(connection: AsyncConnection, name: str) -> User:
    found = await connection.execute(sa.select(users).where(users.c.known_as == known_as(name)))
    row = found.mappings().one_or_none()
    if row is None:
        raise AccountError(
            f"There is no user {name[:LONGEST_NAME]!r}; `python -m storygen users list` names all."
        )
    return as_user(row)


async def _sign_out(connection: AsyncConnection, user: User) -> int:
    ended = await connection.execute(sign_ins.delete().where(sign_ins.c.user_id == user.id))
    return ended.rowcount


async def _exists(connection: AsyncConnection, which: sa.ColumnElement[bool]) -> bool:
    found = await connection.execute(sa.select(sa.literal(1)).where(which).limit(1))
    return found.first() is not None
