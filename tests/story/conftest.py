from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storygen.story.store import StoryStore


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'data' / 'stories.db'}"


@pytest.fixture
async def store(url: str) -> AsyncIterator[StoryStore]:
    store = await StoryStore.open(url)
    yield store
    await store.close()
