import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from storygen.story.store import StoryStore
from tests.story import postgres


@pytest.fixture(scope="session")
def postgresql() -> Iterator[postgres.Server]:
    """A PostgreSQL server; without one the tests are skipped, but never where CI runs them."""
    if postgres.program("initdb") is None and not os.environ.get("CI"):
        pytest.skip("There is no PostgreSQL server here. On Debian: apt install postgresql")
    with postgres.running() as server:
        yield server


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'data' / 'stories.db'}"


@pytest.fixture(scope="session")
def reused_url(postgresql: postgres.Server) -> str:
    return postgresql.new_database()


@pytest.fixture
def postgresql_url(postgresql: postgres.Server, reused_url: str) -> str:
    """A database without stories."""
    return postgresql.emptied(reused_url)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """A database without stories, of each kind: what is claimed of stories holds on both."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
async def store(url: str) -> AsyncIterator[StoryStore]:
    store = await StoryStore.open(url)
    yield store
    await store.close()
