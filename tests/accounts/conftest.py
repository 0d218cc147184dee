from collections.abc import AsyncIterator

import pytest
from argon2 import PasswordHasher

from storygen.accounts import passwords
from storygen.accounts.sign_ins import SignIns
from storygen.accounts.users import Users
from storygen.story.database import Database
from tests.story.conftest import (  # noqa: F401 - fixtures: the claims hold on both databases
    postgresql,
    postgresql_url,
    reused_url,
    sqlite_url,
    url,
)


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a password costs is measured elsewhere."""
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(1, 8, 1))
    passwords._nobody.cache_clear()


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:  # noqa: F811 - the fixture above
    database = await Database.open(url)
    yield database
    await database.close()


@pytest.fixture
def users(database: Database) -> Users:
    return Users(database)


@pytest.fixture
def sign_ins(database: Database) -> SignIns:
    return SignIns(database)
