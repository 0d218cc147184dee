"""What the workspace asks for: ways side by side, edits in place, words out of the fan."""

import asyncio
import html
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storygen.catalogue import ModelInfo
from storygen.chat import workspace
from storygen.chat.controls import Choices
from storygen.chat.draft import drawn_seed
from storygen.chat.screen import SHOWN, tail
from storygen.chat.state import Studio
from storygen.engine.fake import FakeEngine, _info
from storygen.errors import EngineError, StoryError
from storygen.params import SamplingParams
from storygen.story.steering import Steering
from storygen.story.store import StoryStore
from storygen.story.tree import Passage, StoryTree, manuscript
from tests.chat.conftest import OWNER, Window, history_of
from tests.chat.test_turn import PATIENCE, until

StudioWith = Callable[[FakeEngine], Studio]


async def do(window: Window, verb: str, **more: Any) -> None:
    await workspace.do(window.studio, window.chat, {"do": verb, **more})


async def tree(window: Window) -> StoryTree:
    return await window.studio.store.tree(OWNER, window.chat.story_id)


def news(window: Window, kind: str) -> list[Any]:
    """What the workspace was told."""
    told = [data["storygen"] for event, data in window.browser.events if event == "window_message"]
    return [message[kind] for message in told if kind in message]


# Ways side by side


async def test_three_ways_are_written_at_once_and_none_is_taken_until_one_is_picked(
    studio_with: StudioWith,
) -> None:
    engine = FakeEngine([" It was."], [" One", " way."], [" Two", " ways."], [" Three", " ways."])
    window = Window(studio_with(engine))
    await window.type("Begin.")
    head = await window.head()
    engine.delay = 0.02
    await do(window, "versions", n=3)
    ways = (await tree(window)).children(head)
    assert sorted(p.text for p in ways) == [" One way.", " Three ways.", " Two ways."]
    assert await window.head() == head
    assert all(p.state == "complete" and p.finish_reason == "stop" for p in ways)
    assert len({p.params["seed"] for p in ways if p.params}) == 3
    grown = news(window, "growing")
    for version, way in {m["version"]: m["id"] for m in grown if m["version"] is not None}.items():
        text = "".join(m["text"] for m in grown if m["id"] == way)
        assert text == (await tree(window))[way].text, version
    await do(window, "pick", id=ways[1].id)
    assert (await window.texts())[2] == ways[1].text
    await do(window, "undo")
    assert await window.head() == head


async def test_ways_follow_from_the_writers_seed(window: Window) -> None:
    params = SamplingParams(seed=5)
    window.chat.choices = Choices("mystery", params)
    await window.type("Begin.")
    await do(window, "versions", n=2)
    ways = (await tree(window)).children(await window.head())
    assert [p.params["seed"] for p in ways if p.params] == [5, 6]
    assert drawn_seed(2**63 - 1, 1) == 1


async def test_stop_keeps_what_there_is_of_every_way(studio_with: StudioWith) -> None:
    window = Window(studio_with(FakeEngine([" word"] * 100_000, delay=0.005)))
    await studio_with(FakeEngine()).store.create_story(OWNER, story_id=window.chat.story_id)
    window.chat.is_stored = True
    await window.studio.store.add_passage(OWNER, window.chat.story_id, "writer", "Begin.")
    writing = asyncio.create_task(do(window, "versions", n=3))
    await until(lambda: len({m["id"] for m in news(window, "growing") if m["text"]}) == 3)
    await do(window, "stop")
    async with asyncio.timeout(PATIENCE):
        await writing
    ways = (await tree(window)).children(await window.head())
    assert [p.finish_reason for p in ways] == ["cancelled"] * 3
    assert all(p.text.startswith(" word") for p in ways)


async def test_one_way_that_fails_takes_no_other_with_it(studio_with: StudioWith) -> None:
    engine = FakeEngine([" x."], [" One."], [" Tw", EngineError("The lamp broke.")])
    window = Window(studio_with(engine))
    await window.type("Begin.")
    await do(window, "versions", n=2)
    ways = (await tree(window)).children(await window.head())
    assert [(p.text, p.finish_reason) for p in ways] == [(" One.", "stop"), (" Tw", "error")]
    assert "he lamp broke." in window.browser.outputs[-1]
    assert window.studio.failures == 1


async def test_ways_that_cannot_be_stored_take_no_other_with_them(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    await window.type("Begin.")
    grow, calls = window.studio.store.grow_passage, 0

    async def failing(*args: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise StoryError("The disk is full.")
        return await grow(*args, **more)

    monkeypatch.setattr(window.studio.store, "grow_passage", failing)
    await do(window, "versions", n=3)
    ways = (await tree(window)).children(await window.head())
    assert sorted(p.state for p in ways) == ["complete", "complete", "streaming"]
    assert "he disk is full." in window.browser.outputs[-2] + window.browser.outputs[-1]


# Edits in place, going back and forth


async def test_a_passage_is_reworded_and_what_follows_stays(window: Window) -> None:
    first = await window.type("Ann ran.")
    await window.type("Then Ann sat.")
    await do(window, "edit", id=first, text="Bea ran.")
    assert await window.texts() == ["Bea ran.", " It was dark.", "Then Ann sat.", " It was dark."]
    assert window.browser.outputs[0] == "Bea ran."
    assert [p.id for p in (await tree(window)).branch()] == list(window.browser.messages)
    await do(window, "undo")
    assert (await window.texts())[0] == "Ann ran."
    assert news(window, "changed")[-1]["can_redo"] is True


async def test_a_name_is_replaced_throughout(window: Window) -> None:
    await window.type("Ann ran. Annabel sat.")
    await window.type("So ANN rose.")
    await do(window, "replace", text="ann", words=True, **{"with": r"\1Bea"})
    texts = await window.texts()
    assert [texts[0], texts[2]] == [r"\1Bea ran. Annabel sat.", r"So \1Bea rose."]
    assert window.browser.toasts[-1].startswith("Replaced 2 times.")
    await do(window, "undo")
    assert (await window.texts())[0] == "Ann ran. Annabel sat."


async def test_one_can_stand_anywhere(window: Window) -> None:
    first = await window.type("One.")
    await window.type("Two.")
    await do(window, "go", id=first)
    assert list(window.browser.messages)[:1] == [first]
    assert window.browser.outputs[0] == "One."
    assert await window.texts() == ["One."]
    await do(window, "go", id=None)
    assert await window.texts() == []
    await do(window, "undo")
    assert await window.texts() == ["One."]


async def test_an_edit_is_kept_where_another_window_went_elsewhere(window: Window) -> None:
    await window.type("Ann ran.")
    edited = await window.head()
    await do(window, "undo")
    before = await window.texts()
    await do(window, "edit", id=edited, text=" My own words.")
    assert await window.texts() == before
    kept = (await tree(window)).siblings(edited)
    assert [p.text for p in kept] == [" It was dark.", " My own words."]
    assert "kept under Branches" in html.unescape(window.browser.outputs[-2])


async def test_steps_back_that_come_at_once_are_all_taken(window: Window) -> None:
    for n in range(3):
        await window.type(f"{n}.")
    turns = [asyncio.create_task(do(window, "undo")) for _ in range(4)]
    await asyncio.gather(*turns)
    assert len(await window.texts()) < 6
    assert not window.browser.is_busy


async def test_every_window_of_a_story_hears_of_its_changes(studio: Studio) -> None:
    window = Window(studio)
    await window.type("One.")
    other, stranger = Window(studio, window.chat.story_id), Window(studio)
    for each in (other, stranger):
        assert each.chat.owner == OWNER
    await do(window, "undo")
    assert news(other, "changed")[-1]["head"] == await window.head()
    assert news(stranger, "changed") == []


async def test_what_is_put_in_for_other_words_has_a_limit(window: Window) -> None:
    await window.type("Ann.")
    await do(window, "replace", text="Ann", **{"with": "x" * 501})
    assert "501 characters cannot be put in" in html.unescape("".join(window.browser.outputs))
    assert (await window.texts())[0] == "Ann."


# Words out of the fan


async def test_words_grow_one_passage_until_something_else_is_done(window: Window) -> None:
    await window.type("He said ")
    await do(window, "undo")
    for word in (" not", " a", " word."):
        await do(window, "take", text=word)
    told = (await tree(window)).branch()
    assert [(p.text, p.state) for p in told[1:]] == [("not a word.", "streaming")]
    assert window.browser.messages[told[1].id]["streaming"] is False  # or it has no buttons
    await do(window, "continue")
    told = (await tree(window)).branch()
    assert [p.state for p in told] == ["complete"] * 3
    assert told[1].finish_reason == "picked"
    assert [p.text for p in told[1:]] == ["not a word.", " It was dark."]
    assert told[1].id in window.browser.messages


# Once more, and warmer


async def test_the_same_is_written_again(studio_with: StudioWith) -> None:
    engine = FakeEngine([" It was."], [" It was."], [" It is."])
    window = Window(studio_with(engine))
    await window.type("Begin.")
    head = await window.head()
    await do(window, "again", id=head)
    assert news(window, "again") == [{"id": head, "same": True}]
    assert engine.requests[1].params == engine.requests[0].params
    assert engine.requests[1].prompt == engine.requests[0].prompt
    assert len(list(await tree(window))) == 2
    await do(window, "again", id=head)
    (said,) = news(window, "again")[1:]
    assert said["same"] is False
    assert (await tree(window))[said["id"]].text == " It is."
    assert await window.head() == head


async def test_once_more_can_be_stopped(studio_with: StudioWith) -> None:
    engine = FakeEngine([" It was."])
    window = Window(studio_with(engine))
    await window.type("Begin.")
    engine.delay = 3600
    writing = asyncio.create_task(do(window, "again", id=await window.head()))
    await until(lambda: engine.n_running == 1)
    await do(window, "stop")
    async with asyncio.timeout(PATIENCE):
        await writing
    assert not window.browser.is_busy
    assert "undo" in window.browser.buttons
    assert "stopped before its end" in html.unescape("".join(window.browser.outputs))


async def test_what_was_steered_is_written_again_as_it_was(
    window: Window, store: StoryStore
) -> None:
    await window.type("Begin.")
    steering = Steering(memory="Ann is dead.", banned=("so",), stop=("END",), loop_guard=False)
    settings = {"steering": steering.as_json()}
    await store.update_settings(OWNER, window.chat.story_id, settings)
    await do(window, "continue")
    head = await window.head()
    await store.update_settings(OWNER, window.chat.story_id, {"steering": {}})
    await do(window, "again", id=head)
    *_, then, again = window.studio.engine.requests  # type: ignore[attr-defined]  # FakeEngine
    assert then.prompt == again.prompt == "Ann is dead.\n\nBegin. It was dark."
    assert then.params == again.params
    assert (then.params.banned, then.params.stop) == (("so",), ("END",))
    assert then.params.loop_guard is False


async def test_a_loop_offers_to_be_written_warmer(studio_with: StudioWith) -> None:
    engine = FakeEngine([" so so"], finish_reason="loop")
    window = Window(studio_with(engine))
    await window.type("Begin.")
    assert "warmer" in window.browser.buttons
    await do(window, "warmer")
    cold, warm = (request.params for request in engine.requests)
    assert warm.temperature == pytest.approx(cold.temperature + 0.2)
    assert window.chat.choices.params.temperature == cold.temperature
    params = replace(cold, temperature=1.9)
    window.chat.choices = Choices("mystery", params)
    await do(window, "warmer")
    assert engine.requests[-1].params.temperature == 2


# Titles


@pytest.fixture
def plots(studio_with: StudioWith) -> Window:
    """A window whose model begins with a title."""
    model: ModelInfo = replace(_info("plots"), prompt_template="The film '{title}' is:\n")
    return Window(studio_with(FakeEngine([" A man."], models=[model, _info("mystery")])))


async def test_a_title_begins_a_plot_and_stays_before_it(plots: Window) -> None:
    turn = plots.turn
    await turn.name("The  Red Moth")
    assert await plots.texts() == [" A man."]
    assert (await plots.studio.store.story(OWNER, plots.chat.story_id)).title == "The Red Moth"
    await do(plots, "continue")
    prompts = [request.prompt for request in plots.studio.engine.requests]  # type: ignore[attr-defined]  # FakeEngine
    assert prompts == ["The film 'The Red Moth' is:\n", "The film 'The Red Moth' is:\n A man."]
    await plots.turn.name("Moth")
    assert await plots.texts() == [" A man."] * 2  # a story that has begun is only called so


async def test_a_model_without_titles_says_so(plots: Window) -> None:
    plots.chat.choices = Choices("mystery", SamplingParams())
    await plots.turn.name("Moth")
    assert "does not begin with a title" in plots.browser.outputs[-1]
    assert not plots.chat.is_stored


# What cannot be done


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"do": "dance"}, "'dance', which there is not"),
        ({"do": ["go"]}, "which there is not"),
        ({"do": "versions", "n": "3"}, "must be a whole number"),
        ({"do": "go", "id": "x"}, "could not be told"),
        ({"do": "edit", "id": str(uuid4())}, "'text' of what the page asked for is no text"),
        ({"do": "replace", "text": "", "with": ""}, "cannot be looked for"),
        ({"do": "take"}, "is no text"),
    ],
)
async def test_what_makes_no_sense_is_refused(window: Window, asked: Any, sentence: str) -> None:
    await window.type("Begin.")
    before = await window.texts()
    with pytest.raises(StoryError, match=sentence):
        await workspace.do(window.studio, window.chat, asked)
    assert await window.texts() == before


async def test_what_a_story_does_not_have_is_said_on_the_page(window: Window) -> None:
    await window.type("Begin.")
    before = await window.texts()
    for asked in (
        {"do": "go", "id": str(uuid4())},
        {"do": "edit", "id": str(uuid4()), "text": "x"},
        {"do": "edit", "id": await window.head(), "text": " "},
        {"do": "versions", "n": 5},
        {"do": "take", "text": "x" * 101},
        {"do": "again", "id": (await tree(window)).branch()[0].id},
    ):
        await workspace.do(window.studio, window.chat, asked)
        assert "*" in window.browser.outputs[-1], asked  # a notice
        assert await window.texts() == before


async def test_before_the_first_words_there_is_nothing_to_do(window: Window) -> None:
    for verb in set(workspace.VERBS) - {"stop", "set"}:
        with pytest.raises(StoryError, match="story is empty"):
            await do(window, verb, id=None, text="x", **{"with": "y"})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
)


@given(JSON | st.fixed_dictionaries({"storygen": JSON}))
def test_other_messages_between_windows_are_left_alone(payload: Any) -> None:
    found = workspace.asked(payload)
    assert found is None or "do" in found


# Long stories


async def test_a_long_text_becomes_several_passages_and_is_one_step_for_undo(
    window: Window,
) -> None:
    await window.type("Begin.")
    before = await window.texts()
    chapters = [f"Chapter {n}\n\n" + "It rained on and on. " * 150 for n in range(4)]
    text = "\n\n".join(chapters) + "And"
    last = await window.type(text)
    told = (await tree(window)).branch()
    assert len(told) > 5
    assert "".join(p.text for p in told[2:-1]) == text
    assert told[-2].id == last
    assert manuscript(told[:-1]) == manuscript(told[:2]) + "\n\n" + text
    assert list(window.browser.messages) == [p.id for p in told]
    await do(window, "undo")
    await do(window, "undo")
    assert await window.texts() == before


async def test_a_text_of_a_few_pages_stays_one_passage(window: Window) -> None:
    await window.type("It rained. " * 400)
    assert len(await window.texts()) == 2


def test_the_chat_shows_the_end_of_a_long_story() -> None:
    told = [Passage(str(n), "", None, "writer", "", None) for n in range(500)]  # type: ignore[arg-type]  # no time
    assert tail(told) == told[-SHOWN:]
    assert tail(told[:SHOWN]) == told[:SHOWN]
    assert tail(told, first=str(500 - 2 * SHOWN)) == told[-2 * SHOWN :]
    assert tail(told, first=str(499 - 2 * SHOWN)) == told[-SHOWN:]
    assert tail(told, first="gone") == told[-SHOWN:]
    assert tail([]) == []


async def test_a_story_that_has_grown_long_says_where_its_beginning_is(
    window: Window, store: StoryStore
) -> None:
    await window.type("Begin.")
    ids = [p.id for p in (await tree(window)).branch()]
    for n in range(2 * SHOWN):
        added = await store.add_passage(OWNER, window.chat.story_id, "writer", f"{n}.")
        ids.append(added.id)
    await do(window, "continue")
    ids.append(await window.head())
    shown = list(window.browser.messages)
    assert shown == ["earlier", *ids[-SHOWN:]]
    assert "43 passages before these" in html.unescape(window.browser.outputs[0])
    assert window.browser.buttons == ["continue", "versions", "retry", "undo", "copy"]
    for _ in range(3):
        await do(window, "undo")
    assert next(iter(window.browser.messages)) == "earlier"
    again = Window(window.studio, window.chat.story_id)
    thread = await history_of(store).get_thread(window.chat.story_id)
    assert thread is not None
    assert [step["id"] for step in thread["steps"]] == ["earlier", *ids[-SHOWN - 3 : -3]]
    assert all(step["createdAt"] for step in thread["steps"])  # Chainlit opens no story without
    again.chat.screen.opened_on(thread["steps"])
    assert again.chat.screen.shown == ids[-SHOWN - 3 : -3]
    await do(window, "go", id=ids[5])
    assert list(window.browser.messages)[:6] == ids[:6]
    assert "earlier" not in window.browser.messages
