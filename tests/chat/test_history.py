"""Chainlit's history as a view of the store."""

from uuid import uuid4

import pytest
from chainlit.types import Pagination, ThreadFilter

from storygen.chat.events import resume
from storygen.chat.history import UNTITLED, StoryHistory
from storygen.chat.screen import SHOWN_TEXT
from storygen.chat.state import Studio
from storygen.errors import DatabaseError
from storygen.story.rows import MAX_TEXT
from storygen.story.store import StoryStore
from storygen.story.tree import Role, Story, StoryTree
from tests.chat.conftest import OWNER, Window, history_of


@pytest.fixture
def history(store: StoryStore) -> StoryHistory:
    return history_of(store)


async def a_story(store: StoryStore, title: str = "Fog", owner: str = OWNER) -> str:
    """A story of one opening and one passage; its id."""
    story = await store.create_story(owner, title=title)
    await store.add_passage(owner, story.id, "writer", "  *The* fog")
    await store.add_passage(owner, story.id, "model", " came up.")
    return story.id


async def test_story_is_a_thread_of_messages(history: StoryHistory, store: StoryStore) -> None:
    story_id = await a_story(store)
    thread = await history.get_thread(story_id)
    assert thread is not None
    assert thread["id"] == story_id
    assert thread["name"] == "Fog"
    assert thread["userIdentifier"] == OWNER
    kinds = [(step["type"], step["output"]) for step in thread["steps"]]
    assert kinds == [
        ("user_message", "\u2060  *The* fog"),
        ("assistant_message", "**&#32;**&#99;ame up."),
    ]
    assert await history.get_thread_author(story_id) == OWNER


async def test_only_the_active_branch_is_shown(history: StoryHistory, store: StoryStore) -> None:
    story_id = await a_story(store)
    await store.undo(OWNER, story_id)
    thread = await history.get_thread(story_id)
    assert thread is not None
    assert len(thread["steps"]) == 1


async def long_story(store: StoryStore, *roles: Role) -> list[str]:
    """A story of passages as long as can be; its id and theirs."""
    story = await store.create_story(OWNER)
    text = "*" * (MAX_TEXT - 2)
    added = [await store.add_passage(OWNER, story.id, role, f"{text} Z") for role in roles]
    return [story.id, *(passage.id for passage in added)]


async def test_of_long_passages_as_much_is_shown_as_a_window_can_take(
    history: StoryHistory, store: StoryStore
) -> None:
    """Thirty of them were 300 MB, for whose encoding everyone waited half a minute."""
    story_id, *_, last = await long_story(store, "model", "model", "model")
    thread = await history.get_thread(story_id)
    assert thread is not None
    earlier, shown = thread["steps"]
    assert (earlier["id"], shown["id"]) == ("earlier", last)
    assert "he 2 passages before these" in earlier["output"]
    assert shown["output"] == f"&#8230;{'&#42;' * (SHOWN_TEXT - 2)} Z"
    assert (await store.tree(OWNER, story_id))[last].text.startswith("*" * 100)  # all is kept


async def test_a_long_passage_that_can_be_edited_where_it_stands_is_shown_whole(
    history: StoryHistory, store: StoryStore
) -> None:
    story_id, *_ = await long_story(store, "model", "writer")
    thread = await history.get_thread(story_id)
    assert thread is not None
    assert [len(step["output"]) for step in thread["steps"][1:]] == [MAX_TEXT]


async def test_passages_are_shown_as_long_as_they_fit_together(
    history: StoryHistory, store: StoryStore
) -> None:
    story = await store.create_story(OWNER)
    for n in range(4):
        await store.add_passage(OWNER, story.id, "writer", f"{n}" * (SHOWN_TEXT // 2))
    thread = await history.get_thread(story.id)
    assert thread is not None
    assert [step["output"][0] for step in thread["steps"][1:]] == ["2", "3"]


async def test_a_window_goes_on_after_a_long_passage(
    history: StoryHistory, store: StoryStore, studio: Studio
) -> None:
    story = await store.create_story(OWNER)
    await store.add_passage(OWNER, story.id, "model", "It rained. " * (SHOWN_TEXT // 5))
    thread = await history.get_thread(story.id)
    assert thread is not None
    window = Window(studio, story.id)
    await resume(studio, window.chat, thread)
    await window.type("And then?")
    assert list(window.browser.messages) == ["earlier", *window.chat.screen.shown]
    assert window.browser.outputs == [
        "*&#84;he passage before these is in the manuscript.*",
        "And then?",
        "**&#32;**&#73;t was dark.",
    ]


async def test_story_of_another_is_as_if_it_were_not_there(
    history: StoryHistory, store: StoryStore
) -> None:
    story_id = await a_story(store, owner="somebody")
    assert await history.get_thread(story_id) is None
    assert await history.get_thread_author(story_id) == ""
    assert (await history.list_threads(Pagination(first=9), ThreadFilter())).data == []


async def test_list_is_paged_without_gaps_or_repeats(
    history: StoryHistory, store: StoryStore
) -> None:
    ids = [await a_story(store, f"Story {n}") for n in range(5)]
    seen, cursor, pages = [], None, 0
    while True:
        page = await history.list_threads(Pagination(first=2, cursor=cursor), ThreadFilter())
        seen += [thread["id"] for thread in page.data]
        pages += 1
        if not page.pageInfo.hasNextPage:
            break
        cursor = page.pageInfo.endCursor
    assert seen == ids[::-1]
    assert pages == 3


@pytest.mark.parametrize("cursor", ["", "junk", "2024-01-01", "/", "\0"])
async def test_junk_as_a_cursor_is_no_error(history: StoryHistory, cursor: str) -> None:
    page = await history.list_threads(Pagination(first=10**9, cursor=cursor), ThreadFilter())
    assert page.data == []


async def test_search_finds_titles_and_texts(history: StoryHistory, store: StoryStore) -> None:
    await a_story(store, "Fog")
    await a_story(store, "Rain")
    found = await history.list_threads(Pagination(first=9), ThreadFilter(search="rain"))
    assert [thread["name"] for thread in found.data] == ["Rain"]
    found = await history.list_threads(Pagination(first=9), ThreadFilter(search="came up"))
    assert len(found.data) == 2


async def test_renaming_is_kept_and_naming_by_chainlit_is_not(
    history: StoryHistory, store: StoryStore
) -> None:
    story_id = await a_story(store)
    await history.update_thread(story_id, name="  A new\n title ")
    await history.update_thread(story_id, name="continue", user_id=OWNER)
    await history.update_thread(story_id, metadata={"chat_settings": {"x": 1}})
    assert (await store.story(OWNER, story_id)).title == "A new title"
    await history.update_thread(story_id, name="x" * 100_000)
    assert len((await store.story(OWNER, story_id)).title) == 200


async def test_untitled_story_has_a_name_in_the_list(
    history: StoryHistory, store: StoryStore
) -> None:
    await store.create_story(OWNER)
    page = await history.list_threads(Pagination(first=9), ThreadFilter())
    assert page.data[0]["name"] == UNTITLED


async def test_deleted_story_leaves_the_list_and_can_come_back(
    history: StoryHistory, store: StoryStore
) -> None:
    story_id = await a_story(store)
    await history.delete_thread(story_id)
    assert await history.get_thread(story_id) is None
    await store.restore_story(OWNER, story_id)
    assert await history.get_thread(story_id) is not None


async def test_a_database_that_is_away_is_no_missing_story(
    history: StoryHistory, store: StoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    story_id = await a_story(store)

    async def away(owner: str, story_id: str) -> Story:
        raise DatabaseError("The story database is too busy to answer. Try again later.")

    monkeypatch.setattr(store, "story", away)
    for ask in (history.get_thread, history.get_thread_author):
        with pytest.raises(DatabaseError):
            await ask(story_id)


async def test_a_story_deleted_while_it_is_read_is_none(
    history: StoryHistory, store: StoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    story_id, tree = await a_story(store), store.tree

    async def late(owner: str, story_id: str) -> StoryTree:
        await store.delete_story(owner, story_id)
        return await tree(owner, story_id)

    monkeypatch.setattr(store, "tree", late)
    assert await history.get_thread(story_id) is None


async def test_chainlits_own_writes_change_nothing(
    history: StoryHistory, store: StoryStore
) -> None:
    story_id = await a_story(store)
    before = await history.get_thread(story_id)
    assert before is not None
    step = before["steps"][0] | {"output": "forged", "threadId": story_id}
    await history.create_step(step)
    await history.update_step(step)
    await history.delete_step(step["id"])
    assert await history.get_thread(story_id) == before


async def test_nobody_but_the_owner_is_known(history: StoryHistory) -> None:
    assert await history.get_user("somebody") is None
    owner = await history.get_user(OWNER)
    assert owner is not None
    assert owner.id == OWNER
    assert await history.get_thread_author(str(uuid4())) == ""
