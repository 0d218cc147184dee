"""Two servers of the same stories: one turn at a time in each story, wherever it was asked for."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from storygen.chat import elsewhere
from storygen.chat.shared_lock import SharedLock
from storygen.chat.state import Studio
from storygen.engine.fake import FakeEngine
from storygen.errors import StoryError
from storygen.story.store import StoryStore
from tests.chat.conftest import OWNER, Window
from tests.chat.test_turn import ENDLESS, PATIENCE, until
from tests.story import postgres
from tests.story.conftest import postgresql, postgresql_url, reused_url  # noqa: F401 - fixtures

END_OTHERS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"


@pytest.fixture
async def studios(
    postgresql_url: str,  # noqa: F811 - the fixture above
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[list[Studio]]:
    """Two servers; the model of the first never comes to an end, that of the other does."""
    monkeypatch.setattr(elsewhere, "KEEP_EVERY", 0.05)
    made, attending = [], []
    for script in (ENDLESS, [" Then", " silence."]):
        engine = FakeEngine(script, delay=0.005)
        await engine.start()
        made.append(Studio(engine))
        made[-1].store = await StoryStore.open(postgresql_url)
        attending.append(asyncio.create_task(elsewhere.attend(made[-1])))
    for studio in made:
        await until_listening(studio)
    yield made
    for studio in made:
        await studio.stop_all()
    for task in attending:
        task.cancel()
    await asyncio.wait(attending)
    for studio in made:
        await studio.store.close()


async def until_listening(studio: Studio) -> None:
    """It hears what others tell."""
    await until(lambda: studio.store.claims._hear is not None)  # type: ignore[attr-defined]  # it is shared
    await studio.store.claims.keep()  # after which it has been said


def on_the_same_story(studio: Studio, window: Window) -> Window:
    """A window at another server on the story of one here."""
    other = Window(studio, window.chat.story_id)
    other.chat.is_stored = True
    return other


async def test_a_lock_lets_the_turn_meet_a_database_that_is_being_restored() -> None:
    class Restored:
        async def take(self, given_id: str) -> bool:
            raise StoryError("The stories are being restored: start again when that is done.")

    tasks: set[asyncio.Task[None]] = set()
    assert await SharedLock(Restored(), "story", lambda: False, tasks).acquire()  # type: ignore[arg-type]  # as much as it needs


async def begun(window: Window) -> asyncio.Task[str]:
    """A turn whose passage has begun to appear."""
    writing = asyncio.create_task(window.type("Begin."))
    await until(lambda: len(window.browser.messages) > 1)
    return writing


async def test_a_message_at_one_server_ends_the_passage_at_another_and_goes_on_from_it(
    studios: list[Studio],
) -> None:
    one = Window(studios[0])
    writing = await begun(one)
    two = on_the_same_story(studios[1], one)
    async with asyncio.timeout(PATIENCE):
        await two.type("Enough.")
        await writing
    first, cut, second, last = (await studios[1].store.tree(OWNER, one.chat.story_id)).branch()
    assert (first.text, second.text, last.text) == ("Begin.", "Enough.", " Then silence.")
    assert (cut.state, cut.finish_reason) == ("complete", "cancelled")
    assert cut.text
    assert cut.text in studios[1].engine.requests[0].prompt  # type: ignore[attr-defined]  # it is a FakeEngine


async def test_stop_is_heard_at_another_server(studios: list[Studio]) -> None:
    one = Window(studios[0])
    writing = await begun(one)
    two = on_the_same_story(studios[1], one)
    studios[1].stop(two.chat)
    async with asyncio.timeout(PATIENCE):
        await writing
    assert (await one.texts())[0] == "Begin."
    assert studios[0].engine.n_running == 0  # type: ignore[attr-defined]  # it is a FakeEngine


async def test_the_end_of_a_server_stops_no_passage_at_another(studios: list[Studio]) -> None:
    one = Window(studios[0])
    writing = await begun(one)
    two = on_the_same_story(studios[1], one)
    studios[1].writing(two.chat)
    await studios[1].stop_all()
    told = len(one.browser.events)
    await until(lambda: len(one.browser.events) > told + 5)
    assert not writing.done()
    studios[0].stop(one.chat)
    await writing


async def test_a_server_that_ends_in_order_has_let_go_of_its_stories(
    studios: list[Studio],
) -> None:
    one = Window(studios[0])
    writing = await begun(one)
    assert not await studios[1].store.claims.take(one.chat.story_id)
    await studios[0].stop_all()
    assert writing.done()
    assert not studios[0].turns  # else the end is taken for a failure
    assert await studios[1].store.claims.take(one.chat.story_id)
    await studios[1].store.claims.let_go(one.chat.story_id)


async def test_a_window_that_opens_meanwhile_interrupts_nothing(studios: list[Studio]) -> None:
    one = Window(studios[0])
    writing = await begun(one)
    two = on_the_same_story(studios[1], one)
    opening = asyncio.create_task(two.turn.catch_up(redraw=True))
    told = len(one.browser.events)
    await until(lambda: len(one.browser.events) > told + 5)
    assert not writing.done()
    assert not opening.done()
    studios[0].stop(one.chat)
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(writing, opening)
    assert len(two.browser.outputs) == 2
    assert "continue" in two.browser.buttons


async def test_windows_at_other_servers_are_told_where_the_story_stands(
    studios: list[Studio],
) -> None:
    two = Window(studios[1])
    await two.type("Begin.")
    one = on_the_same_story(studios[0], two)
    await two.turn.undo(await two.head())
    head = await two.head()

    def told() -> bool:
        heard = [json.dumps(data) for event, data in one.browser.events if event != "new_message"]
        return any(f'"head": "{head}"' in news and '"can_redo": true' in news for news in heard)

    await until(told)


async def test_a_connection_that_was_lost_is_made_anew_and_hears_again(
    studios: list[Studio],
    postgresql: postgres.Server,  # noqa: F811 - the fixture above
) -> None:
    one = Window(studios[0])
    writing = await begun(one)
    lost = [studio.store.claims._session for studio in studios]  # type: ignore[attr-defined]  # it is a FakeEngine
    postgresql.run(END_OTHERS)
    for studio, session in zip(studios, lost, strict=True):
        claims = studio.store.claims
        await until(lambda c=claims, s=session: c._session not in (None, s))
        await claims.keep()
    two = on_the_same_story(studios[1], one)
    async with asyncio.timeout(PATIENCE):
        await two.type("Enough.")
        await writing
    first, _, *rest = await two.texts()
    assert [first, *rest] == ["Begin.", "Enough.", " Then silence."]


async def test_what_is_told_of_a_story_at_two_servers_at_once_is_kept_whole(
    studios: list[Studio],
) -> None:
    story = await studios[0].store.create_story(OWNER)
    changes = [{"memory": "An otter."}, {"note": "Soon."}]
    for before in changes:
        for after in changes:
            await asyncio.gather(
                studios[0].steer(OWNER, story.id, before), studios[1].steer(OWNER, story.id, after)
            )
    told = (await studios[0].store.story(OWNER, story.id)).settings["steering"]
    assert (told["memory"], told["note"]) == ("An otter.", "Soon.")
