"""Turns: what is stored, in what order, and what the window shows for it."""

import asyncio
import html
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from storygen.catalogue import ModelInfo
from storygen.chat import events, turn
from storygen.chat.controls import Choices
from storygen.chat.prose import sentence, verbatim
from storygen.chat.settings import apply_settings
from storygen.chat.state import Studio
from storygen.chat.turn import Turn
from storygen.engine.fake import FakeEngine
from storygen.errors import BusyError, StoryError
from storygen.params import SamplingParams
from storygen.story.store import StoryStore
from storygen.story.tree import StoryTree
from storygen.story.words import Sought, Span
from tests.chat.conftest import OWNER, Window, history_of

StudioWith = Callable[[FakeEngine], Studio]
ENDLESS = [" word"] * 100_000  # eight minutes with a delay of 5 ms
PATIENCE = 30  # seconds that a busy machine may take


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that will happen."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.005)


async def test_message_and_continuation_are_stored_and_shown(window: Window) -> None:
    first = await window.type("The lamp went out.")
    assert await window.texts() == ["The lamp went out.", " It was dark."]
    assert window.browser.outputs == ["The lamp went out.", verbatim(" It was dark.")]
    assert next(iter(window.browser.messages)) == first
    assert window.browser.buttons == ["continue", "versions", "retry", "undo", "copy"]
    assert not window.browser.is_busy


async def test_it_is_said_that_a_model_takes_its_time_until_it_writes(
    studio_with: StudioWith,
) -> None:
    going = asyncio.Event()

    class Slow(FakeEngine):
        async def count_tokens(self, model: str, text: str) -> int:
            await going.wait()
            return await super().count_tokens(model, text)

    window = Window(studio_with(Slow()))
    turn = asyncio.create_task(window.type("First words."))
    told = sentence("The model is getting ready to write.")
    await until(lambda: told in window.browser.outputs)
    going.set()
    await turn
    assert window.browser.outputs == ["First words.", verbatim(" It was a dark night.")]


async def test_writers_text_is_stored_before_the_engine_is_asked(
    studio_with: StudioWith, store: StoryStore
) -> None:
    seen: list[str] = []

    class Watching(FakeEngine):
        async def count_tokens(self, model: str, text: str) -> int:
            story = (await store.stories(OWNER))[0]
            seen.extend(p.text for p in (await store.tree(OWNER, story.id)).branch())
            return await super().count_tokens(model, text)

    await Window(studio_with(Watching())).type("First words.")
    assert seen[0] == "First words."


async def test_passage_is_stored_while_it_grows(
    studio_with: StudioWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storygen.chat.draft.SAVE_EVERY", 0.05)
    window = Window(studio_with(FakeEngine(ENDLESS, delay=0.01)))
    writing = asyncio.create_task(window.type("Begin."))
    await until(lambda: len(window.browser.messages) > 1)
    first = (await window.texts())[-1]
    written = len(window.browser.events)
    await until(lambda: len(window.browser.events) > written + 5)
    later = (await window.texts())[-1]
    assert len(later) > len(first)
    assert later.startswith(first)
    tree = await window.studio.store.tree(OWNER, window.chat.story_id)
    assert tree.branch()[-1].state == "streaming"
    window.studio.writing(window.chat).stop()
    await writing


async def test_stop_keeps_what_there_is(studio_with: StudioWith) -> None:
    engine = FakeEngine(ENDLESS, delay=0.005)
    window = Window(studio_with(engine))
    writing = asyncio.create_task(window.type("Begin."))
    await until(lambda: len(window.browser.messages) > 1)
    window.studio.writing(window.chat).stop()
    async with asyncio.timeout(PATIENCE):
        await writing
    written = "".join(segment.text for segment in engine.requests[0].segments)
    assert await window.texts() == ["Begin.", written]
    tree = await window.studio.store.tree(OWNER, window.chat.story_id)
    assert tree.branch()[-1].finish_reason == "cancelled"
    assert tree.branch()[-1].state == "complete"
    assert engine.n_running == 0
    assert "continue" in window.browser.buttons


async def test_stop_before_the_first_word_leaves_no_passage(studio_with: StudioWith) -> None:
    engine = FakeEngine([" late"], delay=3600)
    window = Window(studio_with(engine))
    writing = asyncio.create_task(window.type("Begin."))
    await until(lambda: engine.n_running == 1)
    window.studio.writing(window.chat).stop()
    async with asyncio.timeout(PATIENCE):
        await writing
    assert await window.texts() == ["Begin."]
    assert window.browser.buttons == ["continue", "versions", "undo"]


async def test_stop_pressed_while_the_message_is_stored_starts_nothing(
    studio_with: StudioWith,
) -> None:
    engine = FakeEngine()
    window = Window(studio_with(engine))
    turn = window.turn
    window.studio.writing(window.chat).stop()
    await turn.say(str(uuid4()), "Begin.")
    assert await window.texts() == ["Begin."]
    assert engine.requests == []


async def test_message_sent_meanwhile_ends_the_passage_and_goes_on_from_itself(
    studio_with: StudioWith,
) -> None:
    engine = FakeEngine(ENDLESS, [" Then", " silence."], delay=0.005)
    window = Window(studio_with(engine))
    first = asyncio.create_task(window.type("Begin."))
    await until(lambda: len(window.browser.messages) > 1)
    await asyncio.gather(first, window.type("A door slammed."))
    texts = await window.texts()
    assert texts[0] == "Begin."
    assert set(texts[1].split()) == {"word"}
    assert texts[2:] == ["A door slammed.", " Then silence."]
    assert len(window.browser.messages) == 4
    assert [p.id for p in (await _tree(window)).branch()] == list(window.browser.messages)


async def test_twenty_messages_at_once_are_all_kept_and_one_passage_is_written(
    studio_with: StudioWith,
) -> None:
    engine = FakeEngine([" End."])
    window = Window(studio_with(engine))
    lines = [f"Line {n}." for n in range(20)]
    await asyncio.gather(*(window.type(line) for line in lines))
    texts = await window.texts()
    assert sorted(texts[:-1]) == sorted(lines)
    assert texts[-1] == " End."
    assert [p.id for p in (await _tree(window)).branch()] == list(window.browser.messages)
    assert not window.browser.is_busy


async def test_retry_is_a_sibling_with_another_seed(studio_with: StudioWith) -> None:
    engine = FakeEngine([" One."], [" Two."])
    window = Window(studio_with(engine))
    await window.type("Begin.")
    old = await window.head()
    await window.turn.retry(old)
    tree = await _tree(window)
    assert [p.text for p in tree.siblings(old)] == [" One.", " Two."]
    assert window.browser.outputs == ["Begin.", verbatim(" Two.")]
    first, second = (request.params.seed for request in engine.requests)
    assert first != second
    assert tree.branch()[-1].params is not None
    assert tree.branch()[-1].params["seed"] == second


async def test_retry_with_a_chosen_seed_still_differs(studio_with: StudioWith) -> None:
    engine = FakeEngine()
    window = Window(studio_with(engine))
    window.chat.choices = _with(window, seed=7)
    await window.type("Begin.")
    await window.turn.retry(await window.head())
    assert [request.params.seed for request in engine.requests] == [7, 8]


async def test_undo_returns_the_exact_story_and_redo_the_later_one(
    studio_with: StudioWith,
) -> None:
    window = Window(studio_with(FakeEngine([" One."], [" Two."], [" Three."])))
    states = []
    await window.type("Begin.")
    states.append((await window.texts(), window.browser.outputs))
    await window.turn.retry(await window.head())
    states.append((await window.texts(), window.browser.outputs))
    await window.turn.go_on(await window.head())
    states.append((await window.texts(), window.browser.outputs))
    await window.turn.undo(await window.head())
    assert (await window.texts(), window.browser.outputs) == states[1]
    await window.turn.undo(await window.head())
    assert (await window.texts(), window.browser.outputs) == states[0]
    await window.turn.redo(await window.head())
    assert (await window.texts(), window.browser.outputs) == states[1]
    await window.turn.redo(await window.head())
    assert (await window.texts(), window.browser.outputs) == states[2]


async def test_redo_is_offered_as_long_as_there_is_something_undone(window: Window) -> None:
    await window.type("Begin.")
    assert "redo" not in window.browser.buttons
    await window.turn.undo(await window.head())
    assert "redo" in window.browser.buttons
    again = Window(window.studio, window.chat.story_id)  # after a reload, too
    again.chat.is_stored = True
    await again.turn.catch_up(redraw=True)
    assert "redo" in again.browser.buttons
    await window.type("Otherwise.")
    assert "redo" not in window.browser.buttons


async def test_undo_of_everything_offers_only_redo(window: Window) -> None:
    await window.type("Begin.")
    await window.turn.undo(await window.head())
    await window.turn.undo(await window.head())
    assert await window.texts() == []
    assert window.browser.buttons == ["redo"]
    assert window.browser.outputs == [""]  # the message that carries the button


async def test_edit_is_a_sibling_and_undo_brings_the_old_branch_back(
    studio_with: StudioWith,
) -> None:
    window = Window(studio_with(FakeEngine([" One."], [" Two."], [" Three."])))
    first = await window.type("Begin.")
    await window.type("Go on.")
    before = await window.texts()
    await window.turn.edit(first, "Begin anew.")
    assert await window.texts() == ["Begin anew.", " Three."]
    assert window.browser.outputs == ["Begin anew.", verbatim(" Three.")]
    await window.turn.undo(await window.head())
    await window.turn.undo(await window.head())
    assert await window.texts() == before


async def test_edit_of_an_unknown_passage_says_so(window: Window) -> None:
    await window.type("Begin.")
    await window.turn.edit(str(uuid4()), "Other.")
    assert "no longer in the story" in _plain(window)[-1]
    assert await window.texts() == ["Begin.", " It was dark."]


async def test_stale_button_changes_nothing(window: Window) -> None:
    await window.type("Begin.")
    stale = await window.head()
    await window.turn.go_on(stale)
    texts = await window.texts()
    for verb in (Turn.go_on, Turn.retry, Turn.undo, Turn.redo):
        await verb(window.turn, stale)
        assert await window.texts() == texts
        assert "earlier end" in _plain(window)[-1]


async def test_button_pressed_while_a_passage_is_written_waits_for_nothing(
    studio_with: StudioWith,
) -> None:
    engine = FakeEngine(ENDLESS, delay=0.005)
    window = Window(studio_with(engine))
    writing = asyncio.create_task(window.type("Begin."))
    await until(lambda: len(window.browser.messages) > 1)
    await window.turn.go_on(await window.head())
    assert window.browser.toasts == ["A passage is being written here. Press Stop first."]
    assert engine.n_running == 1
    window.studio.writing(window.chat).stop()
    await writing


async def test_error_of_the_engine_is_shown_and_the_story_goes_on(
    studio_with: StudioWith,
) -> None:
    busy = BusyError("Too many passages are being written. Try again in a moment.")
    window = Window(studio_with(FakeEngine([busy], [" Now."])))
    await window.type("Begin.")
    assert any("Too many passages" in output for output in _plain(window))
    assert await window.texts() == ["Begin."]
    await window.turn.go_on(await window.head())
    assert await window.texts() == ["Begin.", " Now."]
    assert window.browser.outputs == ["Begin.", verbatim(" Now.")]  # the notice is gone


async def test_unexpected_error_shows_a_number_and_no_traceback(
    studio_with: StudioWith, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "/home/writer/secret.key"
    window = Window(studio_with(FakeEngine([" Half", RuntimeError(secret)])))
    await window.type("Begin.")
    shown = " ".join(_plain(window))
    assert "number" in shown
    assert secret not in shown
    assert secret in caplog.text
    assert await window.texts() == ["Begin.", " Half"]


async def test_forgotten_words_are_told_once(studio_with: StudioWith) -> None:
    window = Window(studio_with(FakeEngine([" End."])))
    await window.type("One. " * 300)
    assert len(window.browser.toasts) == 1
    assert "no longer sees the first" in window.browser.toasts[0]
    await window.turn.go_on(await window.head())
    assert len(window.browser.toasts) == 1


async def test_models_own_stop_strings_are_left_to_the_engine(studio_with: StudioWith) -> None:
    (plain, *_) = FakeEngine().models()
    engine = FakeEngine([" End."], models=[replace(plain, stop=("END_OF_PLOT",))])
    window = Window(studio_with(engine))
    await window.type("Begin.")
    assert engine.requests[0].params.stop == ()
    stored = (await _tree(window)).branch()[-1].params
    assert stored is not None
    assert SamplingParams(**stored) == engine.requests[0].params  # all there is to write it again


async def test_prompt_leaves_room_for_the_passage(studio_with: StudioWith) -> None:
    engine = FakeEngine([" End."])  # whose models read 128 words
    window = Window(studio_with(engine))
    for asked, read in ((28, 100), (1000, 64)):
        window.chat.choices = _with(window, max_new_tokens=asked)
        await window.type("word " * 300)
        assert len(engine.requests[-1].prompt.split()) == read


async def test_two_windows_on_one_story_agree_after_their_turns(
    studio_with: StudioWith,
) -> None:
    studio = studio_with(FakeEngine([" A."], [" B."], [" C."]))
    one = Window(studio)
    await one.type("Begin.")
    two = Window(studio, one.chat.story_id)
    two.chat.is_stored = True
    await two.turn.catch_up(redraw=True)
    assert two.browser.outputs == one.browser.outputs
    await two.turn.go_on(await two.head())
    await one.type("Mine.")
    assert await one.texts() == ["Begin.", " A.", " B.", "Mine.", " C."]
    assert list(one.browser.messages) == [p.id for p in (await _tree(one)).branch()]


async def test_closed_window_stops_its_own_passage_only(studio_with: StudioWith) -> None:
    engine = FakeEngine(ENDLESS, delay=0.005)
    studio = studio_with(engine)
    one = Window(studio)
    writing = asyncio.create_task(one.type("Begin."))
    await until(lambda: len(one.browser.messages) > 1)
    two = Window(studio, one.chat.story_id)
    studio.leave(two.chat)
    written = len(engine.requests[0].segments)
    await until(lambda: len(engine.requests[0].segments) > written + 3)
    studio.leave(one.chat)
    async with asyncio.timeout(PATIENCE):
        await writing
    assert engine.n_running == 0


async def test_store_that_fails_while_a_passage_is_written_ends_it_with_a_sentence(
    studio_with: StudioWith, store: StoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object, **__: object) -> None:
        raise StoryError("The disk is full. Make room, then go on.")

    engine = FakeEngine(ENDLESS, delay=0.005)
    window = Window(studio_with(engine))
    monkeypatch.setattr(store, "grow_passage", full)
    monkeypatch.setattr("storygen.chat.draft.SAVE_EVERY", 0.05)
    async with asyncio.timeout(PATIENCE):
        await window.type("Begin.")
    assert engine.n_running == 0
    assert any("disk is full" in output for output in _plain(window))
    assert not window.browser.is_busy


async def test_window_opened_while_a_passage_grows_gets_the_whole_of_it(
    studio_with: StudioWith, store: StoryStore
) -> None:
    one = Window(studio_with(FakeEngine(ENDLESS, delay=0.005)))
    writing = asyncio.create_task(one.type("Begin."))
    await until(lambda: len(one.browser.messages) > 1)
    thread = await history_of(store).get_thread(one.chat.story_id)
    assert thread is not None
    two = Window(one.studio, one.chat.story_id)
    await two.browser.emit("resume_thread", thread)
    await events.resume(one.studio, two.chat, thread)
    catching_up = asyncio.create_task(two.turn.catch_up(redraw=False))
    one.studio.writing(one.chat).stop()
    await asyncio.gather(writing, catching_up)
    assert two.browser.outputs == one.browser.outputs


async def test_passage_cut_off_by_a_crash_is_there_and_said_to_be(
    studio: Studio, store: StoryStore
) -> None:
    story = await store.create_story(OWNER, title="Cut")
    await store.add_passage(OWNER, story.id, "writer", "Begin.")
    half = await store.add_passage(OWNER, story.id, "model", " Half a", state="streaming")
    await store.grow_passage(
        OWNER, half.id, " Half a", state="complete", finish_reason="interrupted"
    )
    window = Window(studio, story.id)
    window.chat.is_stored = True
    await window.turn.catch_up(redraw=True)
    assert window.browser.outputs[:2] == ["Begin.", verbatim(" Half a")]
    assert any("cut off" in output for output in _plain(window))
    assert "continue" in window.browser.buttons


async def _tree(window: Window) -> StoryTree:
    return await window.studio.store.tree(OWNER, window.chat.story_id)


def _plain(window: Window) -> list[str]:
    return [html.unescape(output.replace("`", "")) for output in window.browser.outputs]


def _with(window: Window, **values: int) -> Choices:
    choices = window.chat.choices
    return replace(choices, params=replace(choices.params, **values))


async def test_a_model_of_another_is_neither_offered_nor_written_with(
    studio_with: StudioWith,
) -> None:
    theirs, mine = (
        ModelInfo(name, Path(name), 128, 2, 8, 100, display_name=name, owner=owner)
        for name, owner in (("theirs", "somebody-else"), ("mine", OWNER))
    )
    window = Window(studio_with(engine := FakeEngine(models=[theirs, mine])))
    assert window.chat.choices.model == "mine"
    await apply_settings(window.studio, window.chat, {"model": "theirs"})
    assert window.chat.choices.model == "mine"
    window.chat.choices = replace(window.chat.choices, model="theirs")  # as an old story may say
    await window.type("It begins.")
    assert any("is gone" in output for output in window.browser.outputs)
    assert await window.texts() == ["It begins."]
    assert not engine.requests


async def test_what_was_typed_stays_on_the_page_where_there_is_no_room(
    window: Window, studio: Studio
) -> None:
    await window.type("It begins.")
    studio.store._quota._limit = 1
    await window.type("And it goes on.")
    assert "And it goes on." in window.browser.outputs
    assert "nothing was added" in window.browser.outputs[-1]
    studio.store._quota._limit = 0
    await window.type("And on.")
    assert "And on." in await window.texts()


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ("☺" * 500, "begins 'aaaaaaaa' would have 4,000 characters: at most 3,000 can be stored"),
        ("☺" * 300, "The 2 passages in which this stands would have 4,800 characters together"),
    ],
)
async def test_what_replacing_would_make_too_long_is_refused_before_it_is_made(
    window: Window, monkeypatch: pytest.MonkeyPatch, new: str, said: str
) -> None:
    """500 characters for each letter of one long message took 2 GB."""
    made = list[object]()

    def replaced(*asked: object) -> str:
        made.append(asked)
        return ""

    for text in ("a" * 8, "A" * 8):
        await window.type(text)
        await window.turn.undo(await window.head())  # what the model wrote has an a as well
    before = await window.texts()
    monkeypatch.setattr(turn, "MAX_TEXT", 3_000)
    monkeypatch.setattr(turn, "MAX_REPLACED", 4_000)
    monkeypatch.setattr(Sought, "replaced", replaced)
    await window.turn.replace(Sought("a"), new)
    assert any(said in output for output in _plain(window))
    assert not made
    assert await window.texts() == before == ["a" * 8, "A" * 8]


async def test_replacing_leaves_the_threads_that_all_share_to_others(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of six windows it took all there were, and nobody's message was split meanwhile."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    looked, go_on, spans = list[str](), threading.Event(), Sought.spans

    def slowly(sought: Sought, text: str) -> Iterator[Span]:
        looked.append(text)
        go_on.wait(2 * PATIENCE)
        return spans(sought, text)

    windows = [Window(studio) for _ in range(3)]
    for window in windows:
        await window.type("Ann ran.")
    monkeypatch.setattr(Sought, "spans", slowly)
    turns = [asyncio.create_task(w.turn.replace(Sought("Ann"), "Bea")) for w in windows]
    try:
        await until(lambda: bool(looked))
        other = Window(studio)
        await asyncio.wait_for(other.type("It begins."), PATIENCE)
        assert await other.texts() == ["It begins.", " It was dark."]
        assert len(looked) == 1  # one at a time of each user
    finally:
        go_on.set()
        await asyncio.gather(*turns)
    assert [(await window.texts())[0] for window in windows] == ["Bea ran."] * 3
