"""The routes of the workspace, over HTTP, with a real store and a made-up engine."""

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Any
from uuid import uuid4

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.types import Message

from storygen.chat import answering, api
from storygen.chat.state import Studio
from storygen.errors import DatabaseError
from storygen.incoming import CLOSED
from storygen.story import listing
from storygen.story.feedback import PARTNERS, preferences
from storygen.story.store import StoryStore
from storygen.story.tree import Passage, Story, StoryTree, manuscript
from tests.chat.conftest import OWNER


@pytest.fixture
async def client(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """Whoever names themselves in a header is signed in; the owner unless told otherwise."""

    def named(request: Request) -> str | None:
        return request.headers.get("x-owner") or None

    monkeypatch.setattr(answering, "signed_in", named)
    app = Starlette(routes=api.routes(studio))
    transport = httpx.ASGITransport(app)
    headers = {"x-owner": OWNER}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://testserver", headers=headers
    ) as client:
        yield client


@pytest.fixture
async def story(store: StoryStore) -> Story:
    """Two passages, the second in two versions, of which the writer stands at the second."""
    story = await store.create_story(OWNER, title="Rain", settings={"model": "mystery"})
    first = await store.add_passage(OWNER, story.id, "writer", "Ann ran home.")
    params = {"seed": 7, "temperature": 0.8, "stop": []}
    for text in (" It rained.", " It snowed on Ann."):
        await store.add_passage(
            OWNER, story.id, "model", text, parent_id=first.id, model="mystery", params=params
        )
    return await store.story(OWNER, story.id)


async def branch(store: StoryStore, story: Story) -> list[Passage]:
    return (await store.tree(OWNER, story.id)).branch()


async def get(client: httpx.AsyncClient, path: str, **params: Any) -> Any:
    answer = await client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()


async def post(client: httpx.AsyncClient, path: str, body: Any) -> Any:
    answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_the_manuscript_is_the_active_branch(
    client: httpx.AsyncClient, store: StoryStore, story: Story
) -> None:
    found = await get(client, f"/api/stories/{story.id}/manuscript")
    first, second = found["passages"]
    told = await branch(store, story)
    assert "".join(p["joint"] + p["text"] for p in found["passages"]) == manuscript(told)
    assert (found["head"], found["title"], found["can_redo"]) == (told[1].id, "Rain", False)
    assert (first["role"], first["versions"], first["edited"]) == ("writer", 1, None)
    assert (second["version"], second["versions"], second["seed"]) == (2, 2, 7)
    assert second["siblings"][1] == second["id"]


async def test_a_page_gets_what_follows_what_it_has(
    client: httpx.AsyncClient, store: StoryStore, story: Story
) -> None:
    path = f"/api/stories/{story.id}/manuscript"
    told = await branch(store, story)
    other = next(p for p in await store.tree(OWNER, story.id) if p.text == " It rained.")
    for after, known, texts in [
        (told[1].id, told[1].id, []),
        (told[0].id, told[0].id, [told[1].text]),
        (other.id, told[0].id, [told[1].text]),
        (str(uuid4()), None, [p.text for p in told]),
        ("nonsense", None, [p.text for p in told]),
    ]:
        found = await get(client, path, after=after)
        assert (found["after"], [p["text"] for p in found["passages"]]) == (known, texts)
    await store.move_head(OWNER, story.id, None)
    found = await get(client, path, after=told[1].id)
    assert (found["after"], found["passages"]) == (None, [])


async def test_what_the_writer_changed_in_a_models_words_is_known(
    client: httpx.AsyncClient, store: StoryStore, story: Story
) -> None:
    await store.rewrite(OWNER, story.id, {story.head_id: " It snowed on Bea."})
    await store.rewrite(OWNER, story.id, {(await branch(store, story))[0].id: "Bea ran home."})
    found = await get(client, f"/api/stories/{story.id}/manuscript")
    first, second = found["passages"]
    assert first["edited"] is None
    assert [second["text"][a:b] for a, b in second["edited"]] == [" Bea"]


async def test_the_tree_shows_runs_and_what_was_put_away(
    client: httpx.AsyncClient, store: StoryStore, story: Story
) -> None:
    path = f"/api/stories/{story.id}"
    other = next(p for p in await store.tree(OWNER, story.id) if p.text == " It rained.")
    await post(client, f"{path}/passages/{other.id}", {"name": " The  wet end ", "favourite": True})
    found = await get(client, f"{path}/tree")
    trunk, wet, snow = found["runs"]
    assert (trunk["parent"], trunk["count"], trunk["words"]) == (None, 1, 3)
    assert (wet["parent"], wet["name"], wet["favourite"]) == (trunk["id"], "The wet end", True)
    assert (snow["active"], snow["head"], wet["active"]) == (True, True, False)
    await post(client, f"{path}/passages/{other.id}", {"deleted": True})
    found = await get(client, f"{path}/tree")
    assert [(run["count"], run["opening"]) for run in found["runs"]] == [(2, "Ann ran home.")]
    assert [away["id"] for away in found["deleted"]] == [other.id]
    await post(client, f"{path}/passages/{other.id}", {"deleted": False})
    assert (await get(client, f"{path}/tree"))["deleted"] == []


async def test_two_branches_are_compared_from_where_they_part(
    client: httpx.AsyncClient, store: StoryStore, story: Story
) -> None:
    other = next(p for p in await store.tree(OWNER, story.id) if p.text == " It rained.")
    found = await get(
        client, f"/api/stories/{story.id}/compare", left=other.id, right=story.head_id
    )
    assert found["common"] == 1
    assert "".join(text for _, text in found["left"]) == " It rained."
    assert "".join(text for _, text in found["right"]) == " It snowed on Ann."
    assert found["left"] == [["same", " It"], ["gone", " rained"], ["same", "."]]
    assert found["right"] == [["same", " It"], ["new", " snowed on Ann"], ["same", "."]]


async def test_branches_too_long_to_be_compared_are_said_to_be(
    client: httpx.AsyncClient, story: Story, store: StoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "MAX_COMPARED", 20)
    left, right = [passage.id for passage in await store.tree(OWNER, story.id)][1:]
    path = f"/api/stories/{story.id}/compare"
    answer = await client.get(path, params={"left": left, "right": right})
    assert answer.status_code == 400
    assert "29 characters from where they part: at most 20" in answer.json()["error"]


async def test_text_is_found_on_the_branch_with_what_is_around_it(
    client: httpx.AsyncClient, store: StoryStore, story: Story
) -> None:
    told = await branch(store, story)
    found = await get(client, f"/api/stories/{story.id}/find", text="ann")
    assert found["count"] == 2
    assert found["hits"][1] == {
        "passage": told[1].id,
        "start": 14,
        "end": 17,
        "before": " It snowed on ",
        "match": "Ann",
        "after": ".",
    }
    assert (await get(client, f"/api/stories/{story.id}/find", text="ann", case=1))["count"] == 0
    assert (await get(client, f"/api/stories/{story.id}/find", text="an", words=1))["count"] == 0


async def test_steering_is_kept_beside_the_other_settings(
    client: httpx.AsyncClient, store: StoryStore, story: Story
) -> None:
    path = f"/api/stories/{story.id}/steering"
    told = await get(client, path)
    told |= {"memory": "Ann is dead.", "lore": [{"name": "Ann", "keys": ["Ann"], "text": "A."}]}
    assert (await post(client, path, told))["lore"][0]["on"] is True
    assert (await get(client, path))["memory"] == "Ann is dead."
    settings = (await store.story(OWNER, story.id)).settings
    assert settings["model"] == "mystery"


async def test_what_is_not_named_of_the_steering_stays(
    client: httpx.AsyncClient, story: Story
) -> None:
    """Two windows on one story: neither undoes what the other told the model."""
    path = f"/api/stories/{story.id}/steering"
    changes = [{"memory": "Ann is dead."}, {"note": "[Rain.]"}]
    await asyncio.gather(*(post(client, path, change) for change in changes))
    found = await get(client, path)
    assert (found["memory"], found["note"]) == ("Ann is dead.", "[Rain.]")


async def test_the_context_is_the_very_text_the_model_reads(
    client: httpx.AsyncClient, studio: Studio, store: StoryStore, story: Story
) -> None:
    await post(client, f"/api/stories/{story.id}/steering", {"memory": "Ann is dead."})
    found = await get(client, f"/api/stories/{story.id}/context")
    assert [(part["source"], part["text"]) for part in found["parts"]] == [
        ("memory", "Ann is dead.\n\n"),
        ("story", "Ann ran home. It snowed on Ann."),
    ]
    assert (found["model"], found["budget"], found["used"]) == ("mystery", 64, 10)
    assert (found["left_out"], found["dropped"]) == (0, [])


async def test_nothing_is_read_of_an_empty_story(
    client: httpx.AsyncClient, store: StoryStore, story: Story
) -> None:
    await store.move_head(OWNER, story.id, None)
    found = await get(client, f"/api/stories/{story.id}/context")
    assert (found["used"], found["budget"], found["parts"]) == (0, 64, [])
    for what in ("next", "words"):
        answer = await client.get(f"/api/stories/{story.id}/{what}")
        assert answer.status_code == 400
        assert answer.json()["error"].startswith("The story is empty.")


async def test_next_tokens_have_probabilities(client: httpx.AsyncClient, story: Story) -> None:
    found = await get(client, f"/api/stories/{story.id}/next")
    assert found["settings"] == {"temperature": 0.8, "top_k": 50, "top_p": 1.0, "min_p": 0.0}
    assert [token["text"] for token in found["tokens"]] == [" It", " was", " dark."]
    assert math.isclose(found["tokens"][0]["p"], 0.5)


async def test_stories_are_listed_renamed_archived_copied_deleted(
    client: httpx.AsyncClient, store: StoryStore, story: Story
) -> None:
    path = f"/api/stories/{story.id}"
    assert (await post(client, path, {"title": " The   flood "}))["title"] == "The flood"
    copy = await post(client, f"{path}/duplicate", {})
    assert copy["title"] == "The flood (copy)"
    assert copy["passages"] == 3
    page = await get(client, "/api/stories", limit=1)
    assert [s["id"] for s in page["stories"]] == [copy["id"]]
    page = await get(client, "/api/stories", limit=1, before=page["next"])
    assert [s["id"] for s in page["stories"]] == [story.id]
    assert page["next"] is None
    assert (await post(client, path, {"archived": True}))["archived"] is True
    assert [s["id"] for s in (await get(client, "/api/stories", archived=1))["stories"]] == [
        story.id
    ]
    await post(client, path, {"deleted": True})
    found = await get(client, "/api/stories", deleted=1, search="flood")
    assert [s["id"] for s in found["stories"]] == [story.id]
    await post(client, path, {"deleted": False, "archived": False})
    assert len((await get(client, "/api/stories"))["stories"]) == 2


async def test_thumbs_become_pairs(
    client: httpx.AsyncClient, store: StoryStore, story: Story
) -> None:
    path = f"/api/stories/{story.id}/passages"
    rained, snowed = [p for p in await store.tree(OWNER, story.id) if p.role == "model"]
    await post(client, f"{path}/{snowed.id}", {"rating": 1})
    (alone,) = await lines(client)
    assert (alone["text"], alone["rating"]) == (snowed.text, 1)
    await post(client, f"{path}/{rained.id}", {"rating": -1})
    (pair,) = await lines(client)
    assert (pair["prompt"], pair["chosen"], pair["rejected"]) == (
        "Ann ran home.",
        snowed.text,
        rained.text,
    )
    assert pair["chosen_by"]["settings"]["seed"] == 7
    assert pair["story"] == "Rain"


async def test_many_thumbs_come_piece_by_piece_none_made_where_words_stream(
    client: httpx.AsyncClient, store: StoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 thumbs at a place were 62,500 pairs: half a gigabyte, made while nobody's words came."""
    story = await judged(store, 10)
    makers: list[int] = []

    def watched(tree: StoryTree) -> Iterator[dict[str, Any]]:
        for row in preferences(tree):
            makers.append(threading.get_ident())
            yield row

    pieces: list[int] = []

    def piece(title: str, rows: Iterator[dict[str, Any]]) -> bytes:
        data = whole(title, rows)
        pieces.append(data.count(b"\n"))
        return data

    whole = api._piece
    monkeypatch.setattr(api, "_piece", piece)
    monkeypatch.setattr(api, "PIECE", 1000)
    monkeypatch.setattr(api, "preferences", watched)
    found = await lines(client)
    expected = list(preferences(await store.tree(OWNER, story.id)))
    assert len(found) == PARTNERS * 10
    assert found == [{"story": "Rain", **row} for row in expected]
    assert threading.get_ident() not in makers
    assert sum(pieces) == len(makers) == len(found)
    assert 0 < max(pieces) <= 1000 // 100  # a row has more than a hundred bytes


async def test_a_story_deleted_meanwhile_spoils_no_thumbs(
    client: httpx.AsyncClient, store: StoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await judged(store, 1)
    gone = await judged(store, 1)
    tree = store.tree

    async def late(owner: str, story_id: str) -> StoryTree:
        if story_id == gone.id:
            await store.delete_story(owner, story_id)
        return await tree(owner, story_id)

    monkeypatch.setattr(store, "tree", late)
    (pair,) = await lines(client)
    assert (pair["chosen"], pair["rejected"]) == (" 0", " 1")


async def test_thumbs_that_cannot_all_be_read_end_in_an_error(
    client: httpx.AsyncClient, store: StoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a busy database they were as if that were all."""
    for _ in range(2):
        await judged(store, 1)
    tree, calls = store.tree, count()

    async def busy(owner: str, story_id: str) -> StoryTree:
        if next(calls):
            raise DatabaseError("The story database is too busy to answer. Try again later.")
        return await tree(owner, story_id)

    monkeypatch.setattr(store, "tree", busy)
    with pytest.raises(DatabaseError):
        await lines(client)


async def test_thumbs_are_of_all_stories_and_settings_of_none_are_read(
    client: httpx.AsyncClient, store: StoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a thousand stories, parsed, were 700 MB."""
    for archived in (True, False):
        await store.archive(OWNER, (await judged(store, 1)).id, archived=archived)
    monkeypatch.setattr(listing, "as_story", pytest.fail)
    assert len(await lines(client)) == 2


async def test_a_search_ends_when_its_client_leaves(
    studio: Studio, store: StoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, is_cancelled = asyncio.Event(), False

    async def endless(owner: str, **more: Any) -> list[Story]:
        nonlocal is_cancelled
        begun.set()
        try:
            return await asyncio.Future()
        except asyncio.CancelledError:
            is_cancelled = True
            raise

    async def receive() -> dict[str, str]:
        await begun.wait()
        return {"type": "http.disconnect"}

    monkeypatch.setattr(store, "stories", endless)
    monkeypatch.setattr(answering, "signed_in", lambda request: OWNER)
    scope = {"type": "http", "method": "GET", "path": "/api/stories", "headers": []}
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    app = Starlette(routes=api.routes(studio))
    async with asyncio.timeout(5):
        await app(scope | {"query_string": b"search=rain"}, receive, send)
    assert is_cancelled
    assert sent[0]["status"] == CLOSED


async def judged(store: StoryStore, count: int) -> Story:
    """As many versions of a passage with a thumb up as with a thumb down."""
    story = await store.create_story(OWNER, title="Rain", settings={})
    first = await store.add_passage(OWNER, story.id, "writer", "Ann ran home.")
    for number in range(2 * count):
        version = await store.add_passage(
            OWNER, story.id, "model", f" {number}", parent_id=first.id, model="m"
        )
        await store.mark(OWNER, story.id, version.id, rating=-1 if number % 2 else 1)
    return story


async def lines(client: httpx.AsyncClient) -> list[Any]:
    answer = await client.get("/api/feedback")
    assert "attachment" in answer.headers["content-disposition"]
    assert answer.headers["cache-control"] == "no-store"
    return [httpx.Response(200, text=line).json() for line in answer.text.splitlines()]


ROUTES = [(next(iter(r.methods - {"HEAD"})), r.path) for r in api.routes(Studio.__new__(Studio))]


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_nobody_reads_or_changes_what_is_anothers(
    client: httpx.AsyncClient, store: StoryStore, story: Story, method: str, path: str
) -> None:
    before = await branch(store, story), await store.story(OWNER, story.id)
    url = path.format(story=story.id, passage=story.head_id)
    params = {"left": story.head_id, "right": story.head_id, "text": "Ann"}
    for headers, status in (({"x-owner": ""}, 403), ({"x-owner": "other"}, 400)):
        answer = await client.request(method, url, params=params, json={}, headers=headers)
        if "{story}" in path or status == 403:
            assert answer.status_code == status, answer.text
            assert answer.json()["error"]
        assert "Ann" not in answer.text
        assert "Rain" not in answer.text
    assert (await branch(store, story), await store.story(OWNER, story.id)) == before


@pytest.mark.parametrize(
    ("method", "path", "body", "sentence"),
    [
        ("GET", "x/tree", None, "id of the story"),
        ("GET", "{story}/compare?left=x", None, "id of the left"),
        ("GET", "{story}/find?text=", None, "cannot be looked for"),
        ("GET", "{story}/words?after=" + "x" * 2001, None, "after has 2,001 characters"),
        ("POST", "{story}", {"owner": "me"}, "Only title, archived, deleted"),
        ("POST", "{story}", {"title": 5}, "title must be text"),
        ("POST", "{story}", {"archived": 1}, "archived must be true or false"),
        ("POST", "{story}", [], "Only title"),
        ("POST", "{story}/passages/{head}", {"rating": 2}, "A thumb is"),
        ("POST", "{story}/passages/{head}", {"name": "x" * 201}, "at most 200"),
        ("POST", "{story}/passages/x", {"rating": 1}, "id of the passage"),
        ("POST", "{story}/steering", {"mood": 1}, "Steering has no 'mood'"),
        ("GET", "?limit=many", None, "limit must be a whole number"),
    ],
)
async def test_what_cannot_be_done_is_said(
    client: httpx.AsyncClient, story: Story, method: str, path: str, body: Any, sentence: str
) -> None:
    url = "/api/stories/" + path.format(story=story.id, head=story.head_id)
    answer = await client.request(method, url.replace("/?", "?"), json=body)
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]


async def test_a_body_that_is_no_json_is_refused(client: httpx.AsyncClient, story: Story) -> None:
    for body in (b"", b"{", b"[" * 100_000, b"\xff", b"[%b{}]" % (b"{}," * 40_000)):
        answer = await client.post(f"/api/stories/{story.id}", content=body)
        assert answer.status_code == 400
        assert "could not be read" in answer.json()["error"]
