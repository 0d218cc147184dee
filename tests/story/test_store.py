import asyncio
import inspect
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import sqlalchemy as sa

from storygen.errors import StoryError
from storygen.story import store as store_module
from storygen.story.database import Database
from storygen.story.growing import INTERRUPTED
from storygen.story.rows import MAX_TEXT
from storygen.story.statements import HEAD
from storygen.story.store import StoryStore
from storygen.story.tree import Mark, Passage, Story, StoryTree, manuscript

ME, YOU = "me@example.org", "you@example.org"


@pytest.fixture
async def story(store: StoryStore) -> Story:
    """A story of mine with one passage and one that is being streamed, undone once."""
    story = await store.create_story(ME, title="Rain", settings={"temperature": 0.8})
    await store.add_passage(ME, story.id, "writer", "It rained.")
    await store.add_passage(ME, story.id, "model", " All", state="streaming")
    await store.undo(ME, story.id)
    return await store.story(ME, story.id)


def texts(tree: StoryTree) -> list[str]:
    return [passage.text for passage in tree.branch()]


async def everything(store: StoryStore, story_id: str) -> tuple[Story, list[Passage]]:
    """All there is to see of a story of mine."""
    return await store.story(ME, story_id), list(await store.tree(ME, story_id))


async def stored_texts(url: str) -> list[str]:
    """What another program finds in the table of passages."""
    other = await Database.open(url)
    async with other.read() as connection:
        found = (await connection.exec_driver_sql("select text from passages")).scalars().all()
    await other.close()
    return list(found)


# What is kept


async def test_a_new_story_is_given_back_as_it_is_stored(store: StoryStore) -> None:
    given = str(uuid4())
    before = datetime.now(UTC)
    story = await store.create_story(ME, story_id=given, title="Rain", settings={"top_k": 5})
    assert story == await store.story(ME, given)
    assert (story.id, story.owner, story.title, story.head_id) == (given, ME, "Rain", None)
    assert story.settings == {"top_k": 5}
    assert before <= story.created_at == story.updated_at <= datetime.now(UTC)
    assert (await store.create_story(ME)).settings == {}


async def test_a_passage_is_given_back_as_it_is_stored(store: StoryStore, story: Story) -> None:
    params = {"temperature": 0.5, "seed": 2**63 - 1, "stop": ["END"]}
    passage = await store.add_passage(
        ME, story.id, "model", " So", model="mystery", params=params, state="streaming"
    )
    tree = await store.tree(ME, story.id)
    assert passage == tree[passage.id]
    assert (passage.role, passage.text, passage.state) == ("model", " So", "streaming")
    assert (passage.model, passage.params, passage.finish_reason) == ("mystery", params, None)
    assert passage.parent_id == story.head_id
    assert tree.head_id == passage.id


async def test_text_is_kept_to_the_character(store: StoryStore, story: Story) -> None:
    texts = ["", " ", "\n\r\n\t\x1b\x85\u2028", "👩‍👩‍👧 e\u0301 שלום \u202e"]
    for text in [*texts, "<|endoftext|>", "'; DROP TABLE passages; --"]:
        passage = await store.add_passage(ME, story.id, "model", text, state="streaming")
        assert (await store.tree(ME, story.id))[passage.id].text == passage.text == text
        grown = await store.grow_passage(ME, passage.id, text + text)
        assert (await store.tree(ME, story.id))[passage.id].text == grown.text == text + text
        assert (await store.rename(ME, story.id, text)).title == text


async def test_nul_is_kept_where_the_database_can_hold_it(store: StoryStore, url: str) -> None:
    held = "a\x00b" if url.startswith("sqlite") else "a\ufffdb"
    story = await store.create_story(ME, title="a\x00b", settings={"memory": "a\x00b"})
    assert (story.title, story.settings) == (held, {"memory": "a\x00b"})
    passage = await store.add_passage(ME, story.id, "writer", "a\x00b")
    assert passage.text == held
    assert (await store.tree(ME, story.id))[passage.id] == passage
    assert await store.stories(ME, search="a\x00b") == [await store.story(ME, story.id)]


async def test_lone_surrogates_are_kept_as_replacement_characters(store: StoryStore) -> None:
    story = await store.create_story(ME, title="a\ud800b")
    assert story.title == "a\ufffdb"
    passage = await store.add_passage(ME, story.id, "writer", "\udfff ok \ud83d")
    assert passage.text == "\ufffd ok \ufffd"
    assert (await store.tree(ME, story.id))[passage.id] == passage
    assert await store.stories(ME, search="\udc00b") == [await store.story(ME, story.id)]


async def test_a_passage_of_two_million_characters_is_kept_and_no_longer_one(
    store: StoryStore, story: Story
) -> None:
    longest = "é" * 2_000_000
    passage = await store.add_passage(ME, story.id, "model", longest, state="streaming")
    assert (await store.tree(ME, story.id))[passage.id].text == longest
    sentence = r"has 2,000,001 characters: at most 2,000,000"
    with pytest.raises(StoryError, match=sentence):
        await store.grow_passage(ME, passage.id, longest + "!")
    with pytest.raises(StoryError, match=sentence):
        await store.add_passage(ME, story.id, "writer", longest + "!")
    assert (await store.tree(ME, story.id)).head_id == passage.id


async def test_long_titles_and_searches_are_refused(store: StoryStore, story: Story) -> None:
    with pytest.raises(StoryError, match="title has 501 characters"):
        await store.rename(ME, story.id, "t" * 501)
    with pytest.raises(StoryError, match="title has 501 characters"):
        await store.create_story(ME, title="t" * 501)
    with pytest.raises(StoryError, match="search has 501 characters"):
        await store.stories(ME, search="t" * 501)


async def test_titles_are_replaced_and_settings_are_changed(
    store: StoryStore, story: Story
) -> None:
    assert (await store.rename(ME, story.id, "Snow")).title == "Snow"
    changed = await store.update_settings(ME, story.id, {"top_k": 3, "temperature": 1})
    assert changed.settings == {"top_k": 3, "temperature": 1}
    changed = await store.update_settings(ME, story.id, {"top_k": 4})
    assert changed.settings == {"top_k": 4, "temperature": 1}
    after = await store.story(ME, story.id)
    assert (after.title, after.settings, after.head_id) == (
        "Snow",
        changed.settings,
        story.head_id,
    )
    assert after.updated_at > story.updated_at


async def test_settings_are_changed_in_the_order_they_came(store: StoryStore, story: Story) -> None:
    asked = [store.update_settings(ME, story.id, {"seed": n, f"of {n}": n}) for n in range(40)]
    answers = await asyncio.gather(*asked)
    assert [answer.settings["seed"] for answer in answers] == list(range(40))
    assert [len(answer.settings) for answer in answers] == list(range(3, 43))
    assert (await store.story(ME, story.id)).settings == answers[-1].settings


async def test_whose_settings_wait_holds_up_nobody_else(
    store: StoryStore, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One lock stood before everybody's, and was held while a user's quota was looked at."""
    go_on, room = asyncio.Event(), store._quota.room

    @asynccontextmanager
    async def waiting(owner: str, size: int) -> AsyncIterator[None]:
        if owner == ME:
            await go_on.wait()
        async with room(owner, size):
            yield

    monkeypatch.setattr(store._quota, "room", waiting)
    yours = await store.create_story(YOU)
    held = asyncio.create_task(store.update_settings(ME, story.id, {"seed": 1}))
    await asyncio.sleep(0.05)
    changed = await asyncio.wait_for(store.update_settings(YOU, yours.id, {"seed": 2}), 10)
    assert changed.settings == {"seed": 2}
    assert not held.done()
    go_on.set()
    assert (await held).settings["seed"] == 1


async def test_what_is_remembered_is_bounded_by_its_length(
    store: StoryStore, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MOST_REMEMBERED", 30_000)
    stories = [await store.create_story(ME) for _ in range(5)]
    for one in [*stories, *stories]:
        await store.add_passage(ME, one.id, "writer", "x" * 5000)
        assert {p.text for p in await store.tree(ME, one.id)} == {"x" * 5000}
        kept = [len(p.text) for read in store._read.values() for p in read.passages]
        assert 0 < sum(kept) <= 30_000
        assert all(
            read.size == sum(len(p.text) + store_module.PASSAGE for p in read.passages)
            for read in store._read.values()
        )


# Ids


async def test_only_a_uuid_can_be_a_new_id(store: StoryStore, story: Story) -> None:
    uuid = str(uuid4())
    wrong = ["", "head", "../../etc/passwd", "123", "0" * 32, "\ud800", "x" * 10**6]
    wrong += [uuid.upper(), f"{{{uuid}}}", f"urn:uuid:{uuid}", f"{uuid} ", uuid.replace("-", "")]
    for given in wrong:
        with pytest.raises(StoryError, match="is not a UUID") as refused:
            await store.create_story(ME, story_id=given)
        assert len(str(refused.value)) < 200
        with pytest.raises(StoryError, match="is not a UUID"):
            await store.add_passage(ME, story.id, "writer", "x", passage_id=given)


@pytest.mark.parametrize("owner", [ME, YOU])
async def test_an_id_that_is_taken_overwrites_nothing(
    store: StoryStore, story: Story, owner: str
) -> None:
    before = await everything(store, story.id)
    theirs = await store.create_story(owner)
    with pytest.raises(StoryError, match=f"The id {story.id} is taken"):
        await store.create_story(owner, story_id=story.id)
    with pytest.raises(StoryError, match=f"The id {story.head_id} is taken"):
        await store.add_passage(owner, theirs.id, "writer", "x", passage_id=story.head_id)
    assert await everything(store, story.id) == before
    assert texts(await store.tree(owner, theirs.id)) == []
    await store.add_passage(owner, theirs.id, "writer", "y")  # nothing is left half done
    assert texts(await store.tree(owner, theirs.id)) == ["y"]


async def test_what_is_not_there_is_said_to_be_missing(store: StoryStore, story: Story) -> None:
    for id in ("", "nowhere", "\ud800\x00", "' OR 1=1 --", str(uuid4())):
        for call in (store.story, store.tree, store.undo, store.redo, store.delete_story):
            with pytest.raises(StoryError, match="There is no story "):
                await call(ME, id)
        with pytest.raises(StoryError, match="There is no passage "):
            await store.add_passage(ME, story.id, "writer", "x", parent_id=id)
        with pytest.raises(StoryError, match="There is no passage "):
            await store.move_head(ME, story.id, id)
        with pytest.raises(StoryError, match="There is no passage "):
            await store.grow_passage(ME, id, "x")


async def test_a_passage_of_another_story_is_no_parent(store: StoryStore, story: Story) -> None:
    other = await store.create_story(ME)
    with pytest.raises(StoryError, match="There is no passage"):
        await store.add_passage(ME, other.id, "writer", "x", parent_id=story.head_id)
    with pytest.raises(StoryError, match="There is no passage"):
        await store.move_head(ME, other.id, story.head_id)


# The tree, undo and redo


async def test_a_retry_is_a_sibling_and_undo_gives_back_the_earlier_version(
    store: StoryStore,
) -> None:
    story = await store.create_story(ME)
    told = await store.add_passage(ME, story.id, "writer", "Once")
    first = await store.add_passage(ME, story.id, "model", " upon a time")
    second = await store.add_passage(ME, story.id, "model", " in May", parent_id=told.id)
    tree = await store.tree(ME, story.id)
    assert tree.siblings(first.id) == [first, second]
    assert manuscript(tree.branch()) == "Once in May"
    assert not await store.can_redo(ME, story.id)
    await store.undo(ME, story.id)
    assert manuscript((await store.tree(ME, story.id)).branch()) == "Once upon a time"
    assert await store.can_redo(ME, story.id)
    await store.redo(ME, story.id)
    assert manuscript((await store.tree(ME, story.id)).branch()) == "Once in May"


async def test_undo_and_redo_reach_both_ends_even_after_a_restart(
    store: StoryStore, url: str
) -> None:
    story = await store.create_story(ME)
    for n in range(12):
        await store.add_passage(ME, story.id, "writer", f"{n}")
    await store.close()
    store = await StoryStore.open(url)
    for n in reversed(range(12)):
        assert len(texts(await store.tree(ME, story.id))) == n + 1
        await store.undo(ME, story.id)
    assert texts(await store.tree(ME, story.id)) == []
    with pytest.raises(StoryError, match="nothing to undo"):
        await store.undo(ME, story.id)
    for _ in range(12):
        await store.redo(ME, story.id)
    assert texts(await store.tree(ME, story.id)) == [f"{n}" for n in range(12)]
    with pytest.raises(StoryError, match="nothing to redo"):
        await store.redo(ME, story.id)
    await store.close()


async def test_a_new_move_ends_redo_but_loses_no_passage(store: StoryStore) -> None:
    story = await store.create_story(ME)
    first = await store.add_passage(ME, story.id, "writer", "a")
    lost = await store.add_passage(ME, story.id, "writer", "b")
    await store.undo(ME, story.id)
    await store.add_passage(ME, story.id, "writer", "c")
    with pytest.raises(StoryError, match="nothing to redo"):
        await store.redo(ME, story.id)
    tree = await store.tree(ME, story.id)
    assert [p.text for p in tree.children(first.id)] == ["b", "c"]
    await store.move_head(ME, story.id, lost.id)
    assert texts(await store.tree(ME, story.id)) == ["a", "b"]
    await store.undo(ME, story.id)
    assert texts(await store.tree(ME, story.id)) == ["a", "c"]


async def test_moving_the_head_to_where_it_is_changes_nothing(store: StoryStore) -> None:
    story = await store.create_story(ME)
    await store.add_passage(ME, story.id, "writer", "a")
    await store.add_passage(ME, story.id, "writer", "b")
    undone = await store.undo(ME, story.id)
    assert await store.move_head(ME, story.id, undone.head_id) == undone
    await store.redo(ME, story.id)
    assert texts(await store.tree(ME, story.id)) == ["a", "b"]


async def test_the_head_can_stand_before_the_first_passage(store: StoryStore, story: Story) -> None:
    assert (await store.move_head(ME, story.id, None)).head_id is None
    again = await store.add_passage(ME, story.id, "writer", "Another beginning.")
    assert again.parent_id is None
    assert len((await store.tree(ME, story.id)).siblings(again.id)) == 2


# Growing


async def test_a_streamed_passage_grows_until_it_is_complete(
    store: StoryStore, story: Story
) -> None:
    passage = await store.add_passage(ME, story.id, "model", "", state="streaming")
    grown = await store.grow_passage(ME, passage.id, " All day")
    assert (grown.text, grown.state, grown.finish_reason) == (" All day", "streaming", None)
    done = await store.grow_passage(
        ME, passage.id, " All day long.", state="complete", finish_reason="stop"
    )
    assert (done.text, done.state, done.finish_reason) == (" All day long.", "complete", "stop")
    with pytest.raises(StoryError, match=r"is complete and stays as it is"):
        await store.grow_passage(ME, passage.id, "x")
    tree = await store.tree(ME, story.id)
    assert tree[passage.id] == done
    assert tree.head_id == passage.id


async def test_a_passage_cut_off_by_a_crash_is_complete_after_it(
    store: StoryStore, story: Story, url: str
) -> None:
    half = await store.add_passage(ME, story.id, "model", " All", state="streaming")
    await store.grow_passage(ME, half.id, " All day")
    await store.close()
    store = await StoryStore.open(url)
    found = (await store.tree(ME, story.id))[half.id]
    assert (found.text, found.state, found.finish_reason) == (" All day", "complete", INTERRUPTED)
    with pytest.raises(StoryError, match="complete"):
        await store.grow_passage(ME, half.id, "x")
    await store.close()


# Deleting and listing


async def test_a_deleted_story_is_hidden_everywhere_and_comes_back_as_it_was(
    store: StoryStore, story: Story
) -> None:
    before = await everything(store, story.id)
    await store.delete_story(ME, story.id)
    assert await store.stories(ME) == await store.stories(ME, search="Rain") == []
    assert await store.stories(ME, deleted=True) == [story]
    for name, call in CALLS.items():
        if name not in {*MAKING, "stories", "titles", "restore_story", "grow_passage"}:
            with pytest.raises(StoryError, match="There is no story"):
                await call(store, ME, story)
    assert await store.restore_story(ME, story.id) == story
    assert await everything(store, story.id) == before
    assert await store.restore_story(ME, story.id) == story  # nothing to do is no mistake


async def test_a_passage_grows_in_a_story_deleted_meanwhile(
    store: StoryStore, story: Story
) -> None:
    passage = await store.add_passage(ME, story.id, "model", " All", state="streaming")
    await store.delete_story(ME, story.id)
    await store.grow_passage(ME, passage.id, " All day.", state="complete", finish_reason="stop")
    await store.restore_story(ME, story.id)
    assert (await store.tree(ME, story.id))[passage.id].text == " All day."


async def test_pages_show_every_story_once_last_changed_first(store: StoryStore) -> None:
    made = [await store.create_story(ME, title=f"{n}") for n in range(10)]
    await store.create_story(YOU)
    await store.add_passage(ME, made[3].id, "writer", "x")
    shown: list[str] = []
    before = None
    while page := await store.stories(ME, limit=4, before=before):
        shown += [story.title for story in page]
        before = (page[-1].updated_at, page[-1].id)
    assert shown == ["3", *[f"{n}" for n in reversed(range(10)) if n != 3]]
    elsewhere = before[0].astimezone(tz=None) + timedelta(microseconds=1)
    assert [s.title for s in await store.stories(ME, before=(elsewhere, ""))] == shown[-1:]


async def test_stories_changed_at_the_same_moment_are_still_paged_through(
    store: StoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StoppedClock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime(2026, 1, 1, tzinfo=UTC)

    monkeypatch.setattr(store_module, "datetime", StoppedClock)
    made = {(await store.create_story(ME)).id for _ in range(7)}
    shown: list[Story] = []
    while page := await store.stories(
        ME, limit=2, before=(shown[-1].updated_at, shown[-1].id) if shown else None
    ):
        shown += page
    assert len(shown) == 7
    assert {story.id for story in shown} == made


@pytest.mark.parametrize("limit", [0, -1, 1001])
async def test_a_page_has_a_size(store: StoryStore, limit: int) -> None:
    with pytest.raises(StoryError, match=f"A page of {limit} stories"):
        await store.stories(ME, limit=limit)


async def test_search_looks_into_titles_and_all_branches(store: StoryStore) -> None:
    title = await store.create_story(ME, title="100% Rain_fall")
    branch = await store.create_story(ME, title="Other")
    await store.add_passage(ME, branch.id, "writer", "The lighthouse / keeper's\nlamp.")
    await store.add_passage(ME, branch.id, "writer", "Elsewhere.", parent_id=None)
    await store.add_passage(YOU, (await store.create_story(YOU)).id, "writer", "Rain, lighthouse")

    async def found(search: str) -> list[str]:
        return [story.id for story in await store.stories(ME, search=search)]

    for search in ("100%", "rain_", " RAIN ", "l"):
        assert title.id in await found(search)
    for search in ("LIGHT", "/ keeper's\nlamp", "elsewhere", "other"):
        assert await found(search) == [branch.id]
    for search in ("%zz", "_x", "Rain fall", "ra%in"):
        assert await found(search) == []
    assert await found(" ") == [branch.id, title.id]


# Edits, marks, whole stories


async def test_an_edit_copies_what_follows_and_undo_brings_the_old_words_back(
    store: StoryStore,
) -> None:
    story = await store.create_story(ME)
    told = [await store.add_passage(ME, story.id, "writer", f"{n} Ann.") for n in range(4)]
    await store.rewrite(ME, story.id, {told[1].id: "1 Bea.", told[3].id: "3 Bea."})
    tree = await store.tree(ME, story.id)
    assert texts(tree) == ["0 Ann.", "1 Bea.", "2 Ann.", "3 Bea."]
    copies = tree.branch()
    assert copies[0] == told[0]
    assert [p.source_id for p in copies[1:]] == [p.id for p in told[1:]]
    assert [p.created_at for p in copies] == [p.created_at for p in told]
    assert tree.origin(copies[3].id) == told[3]
    await store.undo(ME, story.id)
    assert (await store.tree(ME, story.id)).branch() == told
    await store.redo(ME, story.id)
    assert (await store.tree(ME, story.id)).branch() == copies


async def test_what_an_edit_copies_is_stored_once_and_keeps_its_marks(
    store: StoryStore, url: str
) -> None:
    story = await store.create_story(ME)
    params = {"seed": 5}
    told = [
        await store.add_passage(ME, story.id, "model", f"{n} Ann.", model="m", params=params)
        for n in range(3)
    ]
    await store.mark(ME, story.id, told[2].id, name="The end", rating=1)
    for text in ("Bea.", "Cleo."):
        head = (await store.tree(ME, story.id)).branch()[0]
        await store.rewrite(ME, story.id, {head.id: text})
    texts_stored = await stored_texts(url)
    assert sorted(texts_stored) == ["", "", "", "", "0 Ann.", "1 Ann.", "2 Ann.", "Bea.", "Cleo."]
    for opened in (store, await StoryStore.open(url)):
        tree = await opened.tree(ME, story.id)
        assert texts(tree) == ["Cleo.", "1 Ann.", "2 Ann."]
        last = tree.branch()[-1]
        assert (last.model, last.params, last.state) == ("m", params, "complete")
        assert tree.mark(last.id) == Mark("The end", rating=1)
        assert tree.origin(last.id) == told[2]
    await opened.close()


async def test_a_passage_picked_word_by_word_was_not_cut_off(store: StoryStore, url: str) -> None:
    story = await store.create_story(ME)
    params = {"picked": True}
    await store.add_passage(ME, story.id, "model", " a", state="streaming", params=params)
    await store.close()
    again = await StoryStore.open(url)
    (passage,) = (await again.tree(ME, story.id)).branch()
    assert (passage.state, passage.finish_reason) == ("complete", "picked")
    await again.close()


async def test_an_edit_that_changes_nothing_adds_nothing(store: StoryStore, story: Story) -> None:
    (passage,) = (await store.tree(ME, story.id)).branch()
    assert await store.rewrite(ME, story.id, {passage.id: "It rained."}) == story


async def test_only_the_active_branch_can_be_edited(store: StoryStore, story: Story) -> None:
    undone = list(await store.tree(ME, story.id))[-1]
    for passage_id in (undone.id, str(uuid4())):
        with pytest.raises(StoryError, match="There is no passage"):
            await store.rewrite(ME, story.id, {passage_id: "x"})
    await store.redo(ME, story.id)
    with pytest.raises(StoryError, match="still being written"):
        await store.rewrite(ME, story.id, {story.head_id: "x"})


async def test_a_version_may_be_added_beside_the_head(store: StoryStore, story: Story) -> None:
    versions = [
        await store.add_passage(ME, story.id, "model", f" {n}", move_head=False) for n in range(3)
    ]
    tree = await store.tree(ME, story.id)
    assert tree.head_id == story.head_id
    assert [p.parent_id for p in versions] == [story.head_id] * 3
    assert tree.children(story.head_id)[-3:] == versions


async def test_marks_are_kept_and_nothing_else_changes(store: StoryStore, story: Story) -> None:
    before = await everything(store, story.id)
    assert (await store.tree(ME, story.id)).mark(story.head_id) == Mark()
    await store.mark(ME, story.id, story.head_id, name="The dark end", favourite=True)
    mark = await store.mark(ME, story.id, story.head_id, rating=-1, deleted=True)
    assert mark == Mark("The dark end", favourite=True, rating=-1, deleted=True)
    assert (await store.tree(ME, story.id)).mark(story.head_id) == mark
    assert await everything(store, story.id) == before


async def test_a_story_begins_with_what_was_written_or_not_at_all(store: StoryStore) -> None:
    given, last = str(uuid4()), str(uuid4())
    told = await begin(store, ME, given, ["It rained.\n\n", "All day."], last)
    tree = await store.tree(ME, given)
    assert list(tree) == told == tree.branch()
    assert [(p.text, p.role, p.state) for p in told] == [
        ("It rained.\n\n", "writer", "complete"),
        ("All day.", "writer", "complete"),
    ]
    assert tree.head_id == told[-1].id == last
    made = await store.story(ME, given)
    assert (made.title, made.settings, made.passage_count) == ("Rain", {"top_k": 5}, 2)
    assert (await store.undo(ME, given)).head_id is None  # all that was written in one go
    for story_id, passage_id, text in (
        (given, str(uuid4()), "x"),
        (str(uuid4()), last, "x"),
        (str(uuid4()), str(uuid4()), "x" * (MAX_TEXT + 1)),
        ("no id", str(uuid4()), "x"),
    ):
        with pytest.raises(StoryError):
            await begin(store, ME, story_id, [text], passage_id)
    assert [found.id for found in await store.stories(ME)] == [given]


async def test_a_long_message_is_added_as_a_whole_or_not_at_all(
    store: StoryStore, story: Story
) -> None:
    before, given = await everything(store, story.id), str(uuid4())
    for texts_, passage_id in ((["x", "y" * (MAX_TEXT + 1)], str(uuid4())), (["x", "y"], "no id")):
        with pytest.raises(StoryError):
            await store.add_writing(ME, story.id, texts_, passage_id=passage_id)
        assert await everything(store, story.id) == before
    told = await store.add_writing(ME, story.id, ["All day.\n", "And all night."], passage_id=given)
    tree = await store.tree(ME, story.id)
    assert tree.branch()[-2:] == told
    assert texts(tree) == ["It rained.", "All day.\n", "And all night."]
    assert tree.head_id == told[-1].id == given
    assert (await store.undo(ME, story.id)).head_id == story.head_id


async def test_a_whole_story_is_added_under_ids_of_its_own(store: StoryStore, story: Story) -> None:
    await store.rewrite(ME, story.id, {story.head_id: "It snowed."})
    tree = await store.tree(ME, story.id)
    marks = {tree.head_id: Mark(favourite=True)}
    copy = await store.add_story(
        YOU, title="Copy", settings={"a": 1}, passages=list(tree), head_id=tree.head_id, marks=marks
    )
    copied = await store.tree(YOU, copy.id)
    assert (copy.title, copy.settings, copy.passage_count) == ("Copy", {"a": 1}, 3)
    assert texts(copied) == texts(tree) == ["It snowed."]
    assert [p.text for p in copied] == [p.text for p in tree]
    assert not {p.id for p in copied} & {p.id for p in tree}
    assert copied.origin(copied.head_id).text == "It rained."
    assert copied.mark(copied.head_id) == Mark(favourite=True)
    assert (await store.undo(YOU, copy.id)).head_id is None


async def test_a_whole_story_that_does_not_hang_together_is_refused(
    store: StoryStore, story: Story
) -> None:
    first, second = list(await store.tree(ME, story.id))
    for wrong, head in (([second], None), ([first], second.id), ([first, first], None)):
        with pytest.raises(StoryError):
            await store.add_story(ME, title="", settings={}, passages=wrong, head_id=head)
    assert await store.stories(ME) == [story]


async def test_archived_and_deleted_stories_have_lists_of_their_own(
    store: StoryStore, story: Story
) -> None:
    other = await store.create_story(ME, title="Rain again")
    archived = await store.archive(ME, story.id, archived=True)
    assert (archived.archived, archived.updated_at) == (True, story.updated_at)
    assert await store.stories(ME) == [other]
    assert await store.stories(ME, archived=True, search="rain") == [archived]
    await store.delete_story(ME, other.id)
    assert await store.stories(ME) == []
    assert [s.id for s in await store.stories(ME, deleted=True)] == [other.id]
    assert await store.archive(ME, story.id, archived=False) == story
    assert await store.stories(ME) == [story]


async def test_a_tree_read_before_is_read_on_from_there(
    store: StoryStore, url: str, story: Story
) -> None:
    """Two programs on one database: neither misses what the other did."""
    other = await StoryStore.open(url.replace("data/", "data/../data/"))
    for n in range(6):
        writer, reader = (store, other) if n % 2 else (other, store)
        passage = await writer.add_passage(ME, story.id, "model", f"{n}", state="streaming")
        assert (await reader.tree(ME, story.id))[passage.id] == passage
        grown = await writer.grow_passage(ME, passage.id, f"{n}{n}", state="complete")
        assert (await reader.tree(ME, story.id))[passage.id] == grown
        assert list(await reader.tree(ME, story.id)) == list(await writer.tree(ME, story.id))
    await other.close()


# Owners


async def add_here_and_there(store: StoryStore, owner: str, story: Story) -> None:
    await store.add_passage(owner, story.id, "writer", "here")
    await store.add_passage(owner, story.id, "writer", "there", parent_id=story.head_id)


async def begin(
    store: StoryStore, owner: str, story_id: str, texts: list[str], passage_id: str
) -> list[Passage]:
    made = {"story_id": story_id, "title": "Rain", "settings": {"top_k": 5}}
    return await store.begin_story(owner, **made, texts=texts, passage_id=passage_id)


Call = Callable[[StoryStore, str, Story], Awaitable[object]]
CALLS: dict[str, Call] = {
    "create_story": lambda store, owner, story: store.create_story(owner, story_id=story.id),
    "begin_story": lambda store, owner, story: begin(store, owner, story.id, ["x"], str(uuid4())),
    "story": lambda store, owner, story: store.story(owner, story.id),
    "stories": lambda store, owner, story: store.stories(owner, search="rain"),
    "titles": lambda store, owner, story: store.titles(owner),
    "rename": lambda store, owner, story: store.rename(owner, story.id, "Mine"),
    "update_settings": lambda store, owner, story: store.update_settings(owner, story.id, {}),
    "change_settings": lambda store, owner, story: store.change_settings(owner, story.id, dict),
    "delete_story": lambda store, owner, story: store.delete_story(owner, story.id),
    "restore_story": lambda store, owner, story: store.restore_story(owner, story.id),
    "archive": lambda store, owner, story: store.archive(owner, story.id, archived=True),
    "add_story": lambda store, owner, story: store.add_story(
        owner, title="", settings={}, passages=[], head_id=None
    ),
    "tree": lambda store, owner, story: store.tree(owner, story.id),
    "add_writing": lambda store, owner, story: store.add_writing(
        owner, story.id, ["x", "y"], passage_id=str(uuid4())
    ),
    "rewrite": lambda store, owner, story: store.rewrite(owner, story.id, {story.head_id: "x"}),
    "mark": lambda store, owner, story: store.mark(owner, story.id, story.head_id, rating=1),
    "add_passage": add_here_and_there,
    "grow_passage": lambda store, owner, story: store.grow_passage(owner, story.head_id, "x"),
    "move_head": lambda store, owner, story: store.move_head(owner, story.id, None),
    "undo": lambda store, owner, story: store.undo(owner, story.id),
    "redo": lambda store, owner, story: store.redo(owner, story.id),
    "can_redo": lambda store, owner, story: store.can_redo(owner, story.id),
}


MAKING = ("create_story", "begin_story", "add_story")


def test_every_method_acts_for_an_owner_and_is_tested_here() -> None:
    methods = dict(inspect.getmembers(StoryStore, inspect.isfunction))
    public = {name for name in methods if not name.startswith("_")} - {"close"}
    assert set(CALLS) == public
    for name in public:
        assert list(inspect.signature(methods[name]).parameters)[1] == "owner"


async def test_another_owners_story_is_as_if_it_were_not_there(
    store: StoryStore, story: Story
) -> None:
    before = await everything(store, story.id)
    nothing = Story(str(uuid4()), YOU, "", story.created_at, story.updated_at, str(uuid4()))
    for name in set(CALLS) - {*MAKING, "stories", "titles"}:
        with pytest.raises(StoryError) as missing:
            await CALLS[name](store, YOU, nothing)
        with pytest.raises(StoryError) as foreign:
            await CALLS[name](store, YOU, story)
        said = str(foreign.value).replace(story.id, nothing.id)
        assert said.replace(story.head_id, nothing.head_id) == str(missing.value), name
        assert await everything(store, story.id) == before, name


async def test_another_owners_deleted_story_stays_deleted(store: StoryStore, story: Story) -> None:
    await store.delete_story(ME, story.id)
    with pytest.raises(StoryError, match="There is no story"):
        await store.restore_story(YOU, story.id)
    with pytest.raises(StoryError, match="There is no story"):
        await store.story(ME, story.id)


async def test_lists_hold_only_the_owners_stories(store: StoryStore, story: Story) -> None:
    assert await store.stories(YOU) == []
    assert await store.stories(YOU, search="rain") == []
    assert await store.titles(YOU) == {}
    assert await store.stories(ME, search="rain") == [story]


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """Every SQL statement from now on."""
    seen: list[str] = []

    def see(connection: object, cursor: object, statement: str, *rest: object) -> None:
        seen.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", see)
    yield seen
    sa.event.remove(sa.Engine, "before_cursor_execute", see)


async def test_every_statement_carries_the_owner(
    store: StoryStore, story: Story, statements: list[str]
) -> None:
    for name, call in CALLS.items():
        statements.clear()
        try:
            await call(store, ME, story)
        except StoryError:
            assert name in ("create_story", "begin_story", "grow_passage", "restore_story")
        if name == "delete_story":
            await store.restore_story(ME, story.id)
        asked = [s for s in statements if not s.startswith(NOBODYS)]
        assert asked, name
        for statement in asked:
            carries = r"INSERT INTO \w+ \([^)]*\bowner\b" if "INSERT" in statement else OWNED
            assert re.search(carries, statement), (name, statement)


OWNED = r"(?s)WHERE .*\bowner = (\?|\$\d+)"
NOBODYS = ("BEGIN", "SELECT pg_try_advisory_lock", "SELECT pg_advisory_unlock")


# Many at once


async def test_a_hundred_passages_added_at_once_form_one_line(
    store: StoryStore, story: Story
) -> None:
    story = await store.create_story(ME)
    sent = [f"{n}" for n in range(100)]
    added = await asyncio.gather(
        *(store.add_passage(ME, story.id, "writer", text) for text in sent)
    )
    tree = await store.tree(ME, story.id)
    assert texts(tree) == sent  # each came after the one asked for before
    assert tree.branch() == added


async def test_changes_of_every_kind_at_once_all_happen(store: StoryStore) -> None:
    owners = [f"writer {n}" for n in range(8)]

    async def write(owner: str) -> None:
        story = await store.create_story(owner)
        told = await store.add_passage(owner, story.id, "writer", owner)
        half = await store.add_passage(owner, story.id, "model", "", state="streaming")
        await asyncio.gather(
            store.grow_passage(owner, half.id, " wrote", state="complete"),
            store.rename(owner, story.id, owner),
            store.stories(owner),
            store.tree(owner, story.id),
            store.add_passage(owner, story.id, "writer", "x", parent_id=told.id),
        )
        await store.undo(owner, story.id)

    await asyncio.gather(*(write(owner) for owner in owners))
    for owner in owners:
        [story] = await store.stories(owner)
        assert story.title == owner
        assert texts(await store.tree(owner, story.id)) == [owner, " wrote"]


async def test_a_cancelled_change_happens_whole_or_not_at_all(store: StoryStore) -> None:
    story = await store.create_story(ME)
    generator = random.Random(0)
    for n in range(40):
        task = asyncio.create_task(store.add_passage(ME, story.id, "writer", f"{n}"))
        for _ in range(generator.randrange(60)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    kept = texts(await store.tree(ME, story.id))
    assert kept == sorted(set(kept), key=int)
    for _ in kept:
        await store.undo(ME, story.id)
    assert (await store.story(ME, story.id)).head_id is None
    await store.add_passage(ME, story.id, "writer", "on", parent_id=HEAD)


async def test_what_is_returned_can_be_read_by_another_program(
    store: StoryStore, story: Story, url: str
) -> None:
    await store.add_passage(ME, story.id, "writer", "Safe.")
    assert "Safe." in await stored_texts(url)
