"""Rows with much JSON in them let everyone else have a turn."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from storygen.story.statements import AT_ONCE
from storygen.story.store import StoryStore
from storygen.story.tree import Passage

ME = "me"
MANY = 5 * AT_ONCE


class Parsing:
    """How many texts were parsed as JSON between two turns of the others, at most."""

    def __init__(self, loads: Callable[..., Any]) -> None:
        self._loads, self._count, self.most = loads, 0, 0

    def loads(self, *args: Any, **more: Any) -> Any:
        self._count += 1
        self.most = max(self.most, self._count)
        return self._loads(*args, **more)

    async def others(self) -> None:
        while True:
            self._count = 0
            await asyncio.sleep(0)


async def test_what_is_kept_with_rows_is_parsed_a_few_rows_at_a_time(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsing = Parsing(json.loads)
    monkeypatch.setattr(json, "loads", parsing.loads)
    store = await StoryStore.open(sqlite_url)
    passages = [
        Passage(str(n), "", None, "model", "x", datetime.now(UTC), params={"top_k": n})
        for n in range(MANY)
    ]
    for _ in range(MANY):
        await store.create_story(ME, settings={"top_k": 1})
    long = await store.add_story(ME, title="", settings={}, passages=passages, head_id=None)
    parsing.most = 0
    others = asyncio.create_task(parsing.others())
    assert len(await store.stories(ME, limit=MANY)) == MANY
    assert len(list(await store.tree(ME, long.id))) == MANY
    others.cancel()
    with suppress(asyncio.CancelledError):
        await others
    await store.close()
    assert 1 < parsing.most <= AT_ONCE + 1
