"""The database away, or its disk full, in the middle of a turn: said once, and nothing lost."""

import asyncio
import resource
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from storygen.chat.state import Studio
from storygen.engine.fake import FakeEngine
from storygen.story import database
from tests.chat.conftest import OWNER, Window
from tests.living import living_loop

StudioWith = Callable[[FakeEngine], Studio]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite waits for other programs for a moment only."""
    monkeypatch.setitem(database.PRAGMAS, "busy_timeout", ("200", 200))


async def growing(window: Window, studio: Studio) -> "asyncio.Task[str]":
    """A turn of which some of the passage is stored."""
    turn = asyncio.create_task(window.type("It begins."))
    async with asyncio.timeout(30):
        while not window.chat.is_stored or len(await window.texts()) < 2:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.01)
    return turn


async def test_a_passage_that_could_not_be_stored_is_stored_when_the_database_is_back(
    studio_with: StudioWith, tmp_path: Path
) -> None:
    studio = studio_with(FakeEngine([f" word{n}" for n in range(500)], delay=0.005))
    window = Window(studio)
    turn = await growing(window, studio)
    path = tmp_path / "stories.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with living_loop():
            await turn
        assert [o for o in window.browser.outputs if "database is locked" in o]
        shown = "".join(m["output"] for m in window.browser.messages.values())
        stored = other.execute("SELECT state FROM passages WHERE role = 'model'").fetchone()
        assert stored == ("streaming",)
    tree = await studio.store.tree(OWNER, window.chat.story_id)
    passage = tree.branch()[-1]
    assert passage.state == "complete"
    words = passage.text.split()
    assert words == [f"word{n}" for n in range(len(words))]
    assert words[-1] in shown  # whatever was shown is stored
    assert f"word{len(words)}" not in shown
    studio.engine.scripts = ([" On."],)
    await window.turn.go_on(await window.head())
    assert (await window.texts())[-1] == " On."


async def test_a_full_disk_is_said_and_the_story_goes_on_when_there_is_room(
    studio_with: StudioWith, disk: Callable[[int], None]
) -> None:
    long = [f" {'x' * 1000}{n}" for n in range(400)]
    studio = studio_with(FakeEngine(long, [" On."], delay=0.002))
    window = Window(studio)
    disk(200_000)
    await window.type("It begins.")
    assert [o for o in window.browser.outputs if "Nothing was saved" in o]
    disk(resource.RLIM_INFINITY)
    begun, *rest = await window.texts()
    assert begun == "It begins."
    assert "".join(rest) == "".join(long)[: len("".join(rest))]
    tree = await studio.store.tree(OWNER, window.chat.story_id)
    assert {passage.state for passage in tree} == {"complete"}
    await window.turn.go_on(await window.head())
    assert (await window.texts())[-1] == " On."
