"""Files over HTTP: a draft comes in as a story, a story goes out as a file, and back."""

import asyncio
import io
import re
import resource
import threading
import weakref
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from itertools import count
from typing import Any

import chainlit as cl
import httpx
import pytest
from chainlit.auth import create_jwt
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request

from storygen.chat import answering, files, guards
from storygen.chat.controls import Choices
from storygen.chat.doors import Gate, LocalDoor
from storygen.chat.draft import Draft
from storygen.chat.files import file_name, routes
from storygen.chat.state import Studio
from storygen.errors import DatabaseError
from storygen.params import SamplingParams
from storygen.story import archive, drafts, listing, statements, uploads
from storygen.story.archive import Whole
from storygen.story.books import FORMATS
from storygen.story.steering import Lore, Steering
from storygen.story.store import StoryStore
from storygen.story.tree import PICKED, StoryTree, manuscript
from tests.living import living_loop

OWNER = "writer"
LONG = "\n\n".join(f"CHAPTER {n}\n\n" + "It was a dark night. " * 150 for n in range(1, 4))


def cookies(owner: str = OWNER) -> dict[str, str]:
    return {"access_token": create_jwt(cl.User(identifier=owner))}


@pytest.fixture
async def browser(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """A client that has the writer's cookie, behind the guard as on the page."""
    monkeypatch.setenv("CHAINLIT_AUTH_SECRET", "x" * 48)
    app = guards.Guard(
        Gate(Starlette(routes=routes(studio)), door=LocalDoor()),
        hosts=["x"],
        any_address=False,
        origins=[],
        content_security_policy="",
    )
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://x", cookies=cookies()
    ) as client:
        yield client


async def taken_in(browser: httpx.AsyncClient, name: str, data: bytes) -> str:
    answer = await browser.post("/api/import", params={"name": name}, content=data)
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


async def test_a_draft_becomes_a_story_of_passages(
    browser: httpx.AsyncClient, studio: Studio
) -> None:
    answer = await browser.post("/api/import?name=My%20Fog.txt", content=LONG.encode())
    listed = answer.json()
    tree = await studio.store.tree(OWNER, listed["id"])
    assert manuscript(tree.branch()) == LONG
    assert [p.text[:9] for p in tree.branch()] == ["CHAPTER 1", "CHAPTER 2", "CHAPTER 3"]
    assert {p.role for p in tree} == {"writer"}
    assert listed | {"id": "", "updated": ""} == {
        "id": "",
        "title": "My Fog",
        "updated": "",
        "passages": 3,
        "archived": False,
    }


@pytest.mark.parametrize("form", [*FORMATS, "json"])
async def test_a_story_goes_out_and_comes_back(browser: httpx.AsyncClient, form: str) -> None:
    text = "CHAPTER I\n\nOne *two* <three>\n\n* * *\n\nFour."
    story = await taken_in(browser, "Fog.txt", text.encode())
    answer = await browser.get(f"/api/stories/{story}/export/{form}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == (FORMATS | {"json": "application/json"})[form]
    again = await taken_in(browser, f"Fog.{form}", answer.content)
    assert (await browser.get(f"/api/stories/{again}/export/txt")).text == text
    if form in ("json", "txt", "md"):
        assert (await browser.get(f"/api/stories/{again}/export/{form}")).content == answer.content


async def test_a_file_is_saved_and_never_shown(browser: httpx.AsyncClient) -> None:
    story = await taken_in(browser, "A “tale”: é/ü?.txt", b"<script>alert(1)</script>")
    headers = (await browser.get(f"/api/stories/{story}/export/html")).headers
    assert headers["content-disposition"] == (
        "attachment; filename=\"u.html\"; filename*=UTF-8''%C3%BC.html"
    )
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


async def test_all_stories_go_out_in_one_archive(
    browser: httpx.AsyncClient, studio: Studio
) -> None:
    ids = [await taken_in(browser, name, LONG.encode()) for name in ("Fog.txt", "fog.md", "../x")]
    await studio.store.rename(OWNER, ids[2], "../../etc/passwd")
    await studio.store.archive(OWNER, ids[0], archived=True)
    gone = await taken_in(browser, "Gone.txt", b"gone")
    await studio.store.delete_story(OWNER, gone)
    answer = await browser.get("/api/export")
    assert answer.headers["content-disposition"].startswith('attachment; filename="Stories 2')
    with zipfile.ZipFile(io.BytesIO(answer.content)) as zipped:
        assert zipped.testzip() is None
        assert set(zipped.namelist()) == {
            f"{name}.{form}" for name in ("etc passwd", "fog", "Fog (2)") for form in ("json", "md")
        }
        whole = archive.load(zipped.read("Fog (2).json"))
        assert manuscript(whole.passages) == LONG
        assert drafts.read("a.md", zipped.read("fog.md")).title == "fog"


async def test_all_that_the_page_stores_with_a_story_comes_back(
    browser: httpx.AsyncClient, studio: Studio
) -> None:
    steering = Steering("He is old.", lore=(Lore("Fog", ("fog",), "Thick."),), stop=("END",))
    params = SamplingParams(seed=7, banned=("of course",))
    told = Choices("mystery", params).as_settings() | {"steering": steering.as_json()}
    story = await studio.store.create_story(OWNER, settings=told)
    for stored in (Draft("mystery", params, steering).settings, {PICKED: True}):
        await studio.store.add_passage(OWNER, story.id, "model", "x", params=stored)
    data = (await browser.get(f"/api/stories/{story.id}/export/json")).content
    copy = await studio.store.story(OWNER, await taken_in(browser, "Fog.json", data))
    assert copy.settings == (await studio.store.story(OWNER, story.id)).settings
    was, now = [await studio.store.tree(OWNER, one.id) for one in (story, copy)]
    assert [p.params for p in now] == [p.params for p in was]


AWAY = "The story database is too busy to answer. Try again later."


def away(store: StoryStore, monkeypatch: pytest.MonkeyPatch, *names: str, after: int = 0) -> None:
    """Let the database be away at these methods of a store, after so many calls."""

    def failing(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        calls = count()

        async def ask(*args: Any, **more: Any) -> Any:
            if next(calls) >= after:
                raise DatabaseError(AWAY)
            return await method(*args, **more)

        return ask

    for name in names:
        monkeypatch.setattr(store, name, failing(getattr(store, name)))


async def test_an_archive_that_cannot_be_finished_does_not_look_finished(
    browser: httpx.AsyncClient,
    studio: Studio,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of a busy database it was an archive like any other, but for the stories it had not."""
    for number in range(3):
        await taken_in(browser, f"{number}.txt", b"It rained.")
    away(studio.store, monkeypatch, "tree", after=2)
    sent: list[dict[str, Any]] = []
    with pytest.raises(DatabaseError, match="too busy"):
        await ask(studio, "GET", "/api/export", sent)
    assert sent[0]["status"] == 200
    assert all(message["more_body"] for message in sent[1:])
    half = b"".join(message["body"] for message in sent[1:])
    assert half.startswith(b"PK")
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(half))
    (record,) = [record for record in caplog.records if record.name == files.logger.name]
    assert (record.levelname, AWAY in record.getMessage()) == ("WARNING", True)


async def test_a_database_that_is_away_is_no_missing_story(
    browser: httpx.AsyncClient, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = await taken_in(browser, "a.txt", b"It rained.")
    away(studio.store, monkeypatch, "story", "tree", "titles", "stories")
    for path in (f"/api/stories/{story}/export/txt", "/api/export"):
        answer = await browser.get(path)
        assert (answer.status_code, answer.json()) == (503, {"error": AWAY}), path
        assert int(answer.headers["retry-after"]) > 0


async def test_a_story_deleted_meanwhile_spoils_no_archive(
    browser: httpx.AsyncClient, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    await taken_in(browser, "Fog.txt", b"It rained.")
    gone = await taken_in(browser, "Gone.txt", b"gone")
    tree = studio.store.tree

    async def late(owner: str, story_id: str) -> StoryTree:
        if story_id == gone:
            await studio.store.delete_story(owner, story_id)
        return await tree(owner, story_id)

    monkeypatch.setattr(studio.store, "tree", late)
    answer = await browser.get("/api/export")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as zipped:
        assert sorted(zipped.namelist()) == ["Fog.json", "Fog.md"]


async def test_of_the_stories_of_an_archive_one_is_in_memory(
    browser: httpx.AsyncClient, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their settings may be 700 MB to the thousand."""
    for number in range(5):
        await studio.store.create_story(OWNER, title=f"{number}", settings={"steering": {}})
    held, most = [], []
    real = listing.as_story, statements.as_story
    for module, read in zip((listing, statements), real, strict=True):

        def counted(row: Any, read: Any = read) -> Any:
            story = read(row)
            held.append(weakref.ref(story))
            most.append(sum(one() is not None for one in held))
            return story

        monkeypatch.setattr(module, "as_story", counted)
    answer = await browser.get("/api/export")
    assert len(zipfile.ZipFile(io.BytesIO(answer.content)).namelist()) == 10
    assert 0 < max(most) <= 3


async def test_nothing_at_all_is_an_archive_too(browser: httpx.AsyncClient) -> None:
    answer = await browser.get("/api/export")
    assert zipfile.ZipFile(io.BytesIO(answer.content)).namelist() == []


async def test_whoever_has_no_cookie_has_no_stories(
    browser: httpx.AsyncClient, studio: Studio
) -> None:
    story = await taken_in(browser, "Fog.txt", b"Text.")
    for token in ("", "no.such.token", cookies("other")["access_token"]):
        browser.cookies = httpx.Cookies({"access_token": token})
        for answer in (
            await browser.get(f"/api/stories/{story}/export/txt"),
            await browser.get("/api/export"),
            await browser.post("/api/import", content=b"x"),
        ):
            assert (answer.status_code, list(answer.json())) == (403, ["error"])
    assert len(await studio.store.stories(OWNER)) == 1


@pytest.mark.parametrize("id", ["x", "..%2f..", "00000000-0000-4000-8000-000000000000"])
async def test_an_unknown_story_or_format_is_a_sentence(
    browser: httpx.AsyncClient, id: str
) -> None:
    answer = await browser.get(f"/api/stories/{id}/export/txt")
    assert answer.status_code == 404
    story = await taken_in(browser, "a.txt", b"x")
    answer = await browser.get(f"/api/stories/{story}/export/pdf")
    assert answer.status_code == 404
    assert "choose txt, md, html, docx, epub, json" in answer.json()["error"]


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("a.pdf", b"%PDF-1.7", "it is a PDF"),
        ("a.json", b"[]", "is JSON, but no story"),
        ("a.docx", b"PK\3\4", "damaged"),
        ("", b"", "there is no text in it"),
    ],
)
async def test_what_cannot_be_read_is_refused_in_a_sentence(
    browser: httpx.AsyncClient, studio: Studio, name: str, data: bytes, sentence: str
) -> None:
    answer = await browser.post("/api/import", params={"name": name}, content=data)
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]
    assert await studio.store.stories(OWNER) == []


async def test_nothing_that_comes_in_is_read_in_this_process(
    browser: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16 MB of `[],` held everybody's words up for 1.4 s, in a thread of their own, and took 400 MB
    of memory: the parser is one call, which gives no other thread its turn."""
    for module in (archive, drafts):
        monkeypatch.setattr(module, "load" if module is archive else "read", pytest.fail)
    async with living_loop():
        answer = await browser.post("/api/import?name=a.json", content=b"[[]" + b",[]" * 10**6)
    assert answer.status_code == 400
    await taken_in(browser, "a.txt", b"It was dark.")


async def ask(
    studio: Studio,
    method: str,
    path: str,
    sent: list[dict[str, Any]],
    parts: Sequence[bytes] = (b"",),
    length: int | None = None,
) -> int:
    """Ask with a body in parts, whatever length it says it has; how many of them were read."""
    token = cookies()["access_token"].encode()
    headers = [(b"cookie", b"access_token=" + token)]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"spec_version": "2.4"},
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": headers,
    }
    read = 0

    async def receive() -> dict[str, object]:
        nonlocal read
        await asyncio.sleep(0)
        read += 1
        more = read < len(parts)
        return {"type": "http.request", "body": parts[read - 1], "more_body": more}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await Gate(Starlette(routes=routes(studio)), door=LocalDoor())(scope, receive, send)
    return read


async def import_in(studio: Studio, parts: list[bytes], length: int | None) -> tuple[int, int]:
    """The status, and how many of the parts were read."""
    sent: list[dict[str, Any]] = []
    read = await ask(studio, "POST", "/api/import?name=a.txt", sent, parts, length)
    return sent[0]["status"], read


async def test_no_more_is_read_than_can_be_taken(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHAINLIT_AUTH_SECRET", "x" * 48)
    monkeypatch.setattr(drafts, "MAX_FILE", 1000)
    assert await import_in(studio, [b"x" * 400] * 2, 800) == (200, 2)
    assert await import_in(studio, [b"x" * 400] * 9, 800) == (413, 3)  # it lied
    assert await import_in(studio, [b"x" * 400] * 9, 3600) == (413, 0)
    monkeypatch.setattr(files, "READ_SECONDS", 0.0)
    assert (await import_in(studio, [b"x"] * 100, None))[0] == 408


async def test_the_guard_lets_files_in_and_nothing_else_of_their_size(
    browser: httpx.AsyncClient,
) -> None:
    data = b"It was dark. " * 100_000
    await taken_in(browser, "a.txt", data)
    assert (await browser.post("/api/export", content=data)).status_code == 413
    answer = await browser.post("/api/import", headers={"origin": "http://evil.example"})
    assert answer.status_code == 403


class Slow:
    def __init__(self) -> None:
        self.go_on, self.running, self.most = threading.Event(), 0, 0

    def read(self, name: str, data: bytes) -> Whole:
        """What is read in a thread."""
        self.running += 1
        self.most = max(self.most, self.running)
        self.go_on.wait(30)
        self.running -= 1
        return Whole("Fog", {}, None)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    """Files that are read for as long as the test likes, of whoever names themselves."""

    def named(request: Request) -> str:
        return request.headers.get("x-owner", OWNER)

    monkeypatch.setattr(answering, "signed_in", named)
    reading = Slow()
    monkeypatch.setattr(uploads, "read", reading.read)
    yield reading
    reading.go_on.set()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not is_so():  # noqa: ASYNC110 - a thread sets no event
            await asyncio.sleep(0.001)


async def test_nobodys_files_lock_others_out(browser: httpx.AsyncClient, slow: Slow) -> None:
    """One who sent four files, a byte a second, kept everyone else's out for two minutes."""
    mine = [send(browser, OWNER) for _ in range(5)]
    await until(lambda: slow.running == 1)  # of one user one is read at a time
    done, _ = await asyncio.wait(mine, timeout=1)
    assert sorted(task.result().status_code for task in done) == [429] * 3
    assert all(int(task.result().headers["retry-after"]) > 0 for task in done)
    yours = [send(browser, "you"), send(browser, "they")]
    await until(lambda: slow.running == 2)  # and of all together two
    slow.go_on.set()
    statuses = [answer.status_code for answer in await asyncio.gather(*mine, *yours)]
    assert (statuses.count(200), slow.most) == (4, 2)
    assert (await send(browser, OWNER)).status_code == 200


def send(browser: httpx.AsyncClient, owner: str) -> "asyncio.Task[httpx.Response]":
    path, headers = "/api/import?name=a.txt", {"x-owner": owner}
    sent = browser.post(path, content=b"x" * 1000, headers=headers)
    return asyncio.ensure_future(sent)


async def test_files_in_memory_have_a_limit_together(
    browser: httpx.AsyncClient, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_HELD", 1500)
    first = send(browser, OWNER)
    await until(lambda: slow.running == 1)
    answer = await send(browser, "you")
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
    slow.go_on.set()
    assert (await first).status_code == 200
    assert (await send(browser, "you")).status_code == 200


async def test_a_story_in_line_for_its_export_is_not_in_memory(
    browser: httpx.AsyncClient, studio: Studio, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = await studio.store.create_story(OWNER)
    first = send(browser, OWNER)
    await until(lambda: slow.running == 1)
    read: list[str] = []
    tree = StoryStore.tree

    async def noted(store: StoryStore, owner: str, story_id: str) -> StoryTree:
        read.append(story_id)
        return await tree(store, owner, story_id)

    monkeypatch.setattr(StoryStore, "tree", noted)
    exported = asyncio.ensure_future(browser.get(f"/api/stories/{story.id}/export/txt"))
    await asyncio.wait([exported], timeout=0.2)
    assert not exported.done()
    assert read == []
    slow.go_on.set()
    assert (await exported).status_code == (await first).status_code == 200


async def test_a_draft_for_which_the_disk_has_no_room_is_refused_and_leaves_nothing(
    browser: httpx.AsyncClient, studio: Studio, disk: Callable[[int], None]
) -> None:
    disk(200_000)
    async with living_loop():
        answer = await browser.post("/api/import?name=x.txt", content=LONG.encode() * 100)
    assert (answer.status_code, answer.json()["error"].count("Nothing was saved")) == (503, 1)
    assert await studio.store.stories(OWNER, limit=1) == []
    disk(resource.RLIM_INFINITY)
    await taken_in(browser, "x.txt", LONG.encode() * 100)


@given(st.text() | st.text(st.sampled_from('./\\:*?"<>|\0\u202e AX')))
def test_a_file_name_is_a_name_everywhere(title: str) -> None:
    name = file_name(title)
    assert name == name.strip(" .")
    assert 0 < len(name.encode()) <= 126
    assert not set('/\\:*?"<>|\0\n\u202e') & set(name)


@given(st.text() | st.text(st.sampled_from("＂＜．／＼：\"'; A")))
def test_wide_characters_end_no_name_in_a_header(title: str) -> None:
    """A wide quotation mark was made a plain one for old browsers, and ended the name there."""
    said = files._attachment(f"{file_name(title)}.txt", "text/plain")["content-disposition"]
    assert re.fullmatch(r"""attachment; filename="[^"\\/:<>]+\.txt"; filename\*=UTF-8''\S+""", said)


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("", "Untitled story"),
        ("...", "Untitled story"),
        ("CON", "Story CON"),
        ("nul.txt", "Story nul.txt"),
        ("Console", "Console"),
        ("天" * 100, "天" * 40),
        ("\u202egpj.exe", "gpj.exe"),
    ],
)
def test_names_that_would_be_trouble(title: str, name: str) -> None:
    assert file_name(title) == name
