"""Several writers at one page: real browsers' requests and sockets of two users and of nobody."""

import asyncio
import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from uuid import uuid4

import engineio
import httpx
import jwt
import pytest
from socketio.exceptions import ConnectionError as Refused

from storygen.accounts.users import Users
from storygen.errors import AccountError
from storygen.story.database import Database
from tests.protocol.conftest import (
    PATIENCE,
    ROOT,
    Client,
    Connect,
    Server,
    connecting,
    environment,
    get,
    post,
    serve,
)

PASSWORDS = {"ada": "rope lantern otter", "bob": "otter lantern rope", "eve": "lantern rope otter"}
COUNTER = count(1)
COOKIE = "storygen_sign_in"
SECRET = "a title that nobody else may read"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A page with three accounts, of which ada's sees how it goes."""
    data = tmp_path_factory.mktemp("shared")

    async def add_all() -> None:
        database = await Database.open(f"sqlite+aiosqlite:///{data / 'stories.db'}")
        for name, password in PASSWORDS.items():
            await Users(database).add(name, password, is_admin=name == "ada")
        await database.close()

    asyncio.run(add_all())
    server = serve(data, STORYGEN_AUTH="password", STORYGEN_TRUSTED_PROXIES="127.0.0.1")
    yield server
    server.stop()


def sign_in(server: Server, name: str, password: str = "", **headers: str) -> httpx.Response:
    """What the form sends, from an address that nobody else tries from."""
    fields = {"name": name, "password": password or PASSWORDS[name]}
    headers = {"Origin": server.url} | address() | headers
    return post(f"{server.url}/login", data=fields, headers=headers)


def address() -> dict[str, str]:
    """What a proxy says of a browser somewhere; what that claims itself comes before it."""
    return {"X-Forwarded-For": f"203.0.113.1, 2001:db8:{next(COUNTER):x}::1"}


def cookie_of(response: httpx.Response) -> str:
    assert response.status_code == 303, response.text
    return f"{COOKIE}={response.cookies[COOKIE]}"


@pytest.fixture(scope="module")
def cookies(shared: Server) -> dict[str, str]:
    """Ada's browser and Bob's."""
    return {name: cookie_of(sign_in(shared, name)) for name in ("ada", "bob")}


@pytest.fixture
async def ada(shared: Server, cookies: dict[str, str]) -> AsyncIterator[Connect]:
    async with connecting(shared, cookies["ada"]) as connect:
        yield connect


@pytest.fixture
async def bob(shared: Server, cookies: dict[str, str]) -> AsyncIterator[Connect]:
    async with connecting(shared, cookies["bob"]) as connect:
        yield connect


def user_command(server: Server, *words: str, typed: str = "") -> str:
    """The command, in a process of its own while the page runs."""
    done = subprocess.run(
        [sys.executable, "-m", "storygen", "users", *words],
        cwd=ROOT,
        env=environment(server.data),
        input=typed,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def told(client: Client) -> None:
    """Have the client's story begin."""
    await client.set(max_new_tokens=16)
    await client.send(f"nonce-{uuid4().hex}")
    await client.finished()


STORY = "/api/stories/{story}"
ASKED = [
    ("POST", STORY),
    ("POST", f"{STORY}/duplicate"),
    ("GET", f"{STORY}/manuscript"),
    ("GET", f"{STORY}/tree"),
    ("GET", f"{STORY}/compare?left={{passage}}&right={{passage}}"),
    ("GET", f"{STORY}/find?text=a"),
    ("POST", f"{STORY}/passages/{{passage}}"),
    ("GET", f"{STORY}/steering"),
    ("POST", f"{STORY}/steering"),
    ("GET", f"{STORY}/context"),
    ("GET", f"{STORY}/next"),
    ("GET", f"{STORY}/words"),
    ("GET", f"{STORY}/export/txt"),
    ("GET", f"{STORY}/export/json"),
    ("PUT", "/project/thread"),
    ("DELETE", "/project/thread"),
    ("GET", "/project/thread/{story}"),
    ("POST", "/project/action"),
]


async def test_what_is_anothers_is_as_if_it_were_not_there(
    shared: Server, cookies: dict[str, str], ada: Connect
) -> None:
    hers = await ada()
    await told(hers)
    async with (
        httpx.AsyncClient(base_url=shared.url, headers={"Cookie": cookies["ada"]}) as her,
        httpx.AsyncClient(base_url=shared.url, headers={"Cookie": cookies["bob"]}) as him,
    ):
        her.timeout = him.timeout = httpx.Timeout(PATIENCE)
        rename = {"threadId": hers.story_id, "name": SECRET}
        assert (await her.put("/project/thread", json=rename)).status_code == 200
        before = (await her.get(f"/api/stories/{hers.story_id}/manuscript")).text
        passage = json.loads(before)["passages"][0]["id"]
        for method, path in ASKED:
            answers = []
            for ids in (
                (hers.story_id, passage, hers.session_id),
                (str(uuid4()), str(uuid4()), str(uuid4())),
            ):
                told_ids = dict(zip(("story", "passage", "session"), ids, strict=True))
                body = {"threadId": ids[0], "name": "mine now"}
                if path == "/project/action":
                    body = {"sessionId": ids[2], "action": {"name": "undo", "payload": {}}}
                elif path.startswith("/api"):
                    body = {"deleted": True}
                answer = await him.request(method, path.format(**told_ids), json=body)
                answers.append((answer.status_code, answer.text.replace(ids[0], "ID")))
            assert answers[0] == answers[1], path
            assert 400 <= answers[0][0] < 500, path
        assert (await her.get(f"/api/stories/{hers.story_id}/manuscript")).text == before
        query = {"pagination": {"first": 10}, "filter": {}}
        for listing in (
            await him.post("/project/threads", json=query),
            await him.get("/api/stories"),
            await him.get("/api/stories?search=title"),
            await him.get("/api/export"),
            await him.get("/api/feedback"),
        ):
            assert SECRET not in listing.text
            assert SECRET.encode() not in listing.content
        assert SECRET in (await her.get("/api/stories")).text


async def test_anothers_passages_cannot_be_taken_over_ones_own_socket(
    shared: Server, cookies: dict[str, str], ada: Connect, bob: Connect
) -> None:
    hers, his = await ada(), await bob()
    await asyncio.gather(told(hers), told(his))
    address = f"{shared.url}/api/stories/{hers.story_id}/tree"
    headers = {"Cookie": cookies["ada"]}
    async with httpx.AsyncClient(timeout=PATIENCE) as http:
        before = (await http.get(address, headers=headers)).json()
    passage = next(m["id"] for m in hers.messages.values() if m["type"] == "assistant_message")
    for verb in ("pick", "edit", "again"):
        said = []
        for one in (passage, str(uuid4())):
            his.events.clear()
            asked = {"do": verb, "id": one, "text": "mine"}
            await his.socket.emit("window_message", {"storygen": asked})
            await his.until(lambda: bool(_notices(his)))
            said.append(_notices(his)[0].replace(one, "ID"))
        assert said[0] == said[1], verb
    async with httpx.AsyncClient(timeout=PATIENCE) as http:
        assert (await http.get(address, headers=headers)).json() == before


def _notices(client: Client) -> list[str]:
    """What a window was told of something that could not be done."""
    kinds = {"toast": "message", "new_message": "output"}
    return [str(data[kinds[event]]) for _, event, data in client.events if event in kinds]


async def test_a_window_on_anothers_story_is_one_on_none(ada: Connect, bob: Connect) -> None:
    hers = await ada()
    await told(hers)
    for story_id in (hers.story_id, str(uuid4())):
        his = await bob(story_id)
        assert his.messages == {}
        assert [event for _, event, _ in his.events].count("resume_thread_error") == 1
        await told(his)
        assert his.story_id not in {hers.story_id, ""}


async def test_a_window_by_the_name_of_anothers_is_ones_own(
    shared: Server, cookies: dict[str, str], ada: Connect
) -> None:
    """It was refused, which told that the other was open."""
    hers, his = await ada(), Client(shared, cookies["bob"])
    his.session_id = hers.session_id
    await told(hers)
    try:
        await his.connect()
        assert hers.story_id not in str(his.events)
        await told(his)
        assert (await his.press("undo")).status_code == 200
        await his.until(lambda: "redo" in his.actions)
        assert "undo" in hers.actions
        assert hers.socket.connected
    finally:
        await his.socket.disconnect()


async def test_signing_out_is_the_end_of_it_and_of_every_window(
    shared: Server, bob: Connect
) -> None:
    cookie = cookie_of(sign_in(shared, "ada"))
    async with connecting(shared, cookie) as connect:
        one, two = await connect(), await connect()
        other = await bob()
        answer = post(f"{shared.url}/logout", headers={"Cookie": cookie}, json={})
        assert answer.json() == {"success": True}
        assert f'{COOKIE}=""' in answer.headers["set-cookie"]
        await asyncio.wait_for(asyncio.gather(one.socket.wait(), two.socket.wait()), PATIENCE)
        assert any(event == "reload" for _, event, _ in one.events)
        assert other.socket.connected
        for path in ("/user", "/api/stories", "/api/admin"):
            assert get(shared.url + path, headers={"Cookie": cookie}).status_code == 401
        with pytest.raises(Refused):
            await connect()


@pytest.mark.parametrize("verb", ["sign-out", "disable", "password"])
async def test_the_command_ends_windows_while_the_page_runs(shared: Server, verb: str) -> None:
    cookie = cookie_of(sign_in(shared, "eve"))
    async with connecting(shared, cookie) as connect:
        window = await connect()
        typed = PASSWORDS["eve"] if verb == "password" else ""
        await asyncio.to_thread(user_command, shared, verb, "eve", typed=typed)
        await asyncio.wait_for(window.socket.wait(), PATIENCE)
        assert get(f"{shared.url}/user", headers={"Cookie": cookie}).status_code == 401
    if verb == "disable":
        refused = sign_in(shared, "eve")
        assert refused.status_code == 401
        assert refused.text == sign_in(shared, "eve", "not the password").text
        user_command(shared, "enable", "eve")


class Line:
    """A socket under a window's, which stays where the window goes, and can bring another."""

    def __init__(self) -> None:
        self._client = engineio.AsyncClient()
        self._answers: asyncio.Queue[str] = asyncio.Queue()
        self._client.on("message", self._take)
        self._client.on("disconnect", lambda reason: self._take(""))

    def _take(self, said: str) -> None:
        if said[:1] in ("", "0", "1", "4"):
            self._answers.put_nowait(said[:1])

    async def open(self, server: Server, cookie: str) -> None:
        """Where the server listens."""
        try:
            await self._client.connect(
                server.url, {"Cookie": cookie}, ["websocket"], engineio_path="/ws/socket.io"
            )
        except engineio.exceptions.ConnectionError:
            await self._client.http.close()
            raise

    async def answer(self) -> str:
        """What comes next: "0" for a window that was let in, "4" for one that was not, "1" where
        one is sent away, nothing where the socket ends."""
        return await asyncio.wait_for(self._answers.get(), PATIENCE)

    async def enter(self) -> str:
        """What a window is answered that asks to be let in."""
        auth = {"clientType": "webapp", "sessionId": str(uuid4()), "threadId": "", "userEnv": "{}"}
        await self._client.send("0" + json.dumps(auth | {"chatProfile": ""}))
        return await self.answer()

    async def leave(self) -> None:
        """Take the window away, without a word of the server's to wait for."""
        await self._client.send("1")

    async def close(self) -> None:
        """End it from here."""
        await self._client.disconnect()


@asynccontextmanager
async def line(server: Server, cookie: str) -> AsyncIterator[Line]:
    """A socket with a window that was let in."""
    opened = Line()
    await opened.open(server, cookie)
    try:
        assert await opened.enter() == "0"
        yield opened
    finally:
        await opened.close()


async def test_who_signs_out_has_no_socket_left(shared: Server) -> None:
    """Its windows alone were closed; the socket brought others then, and they could write."""
    cookie = cookie_of(sign_in(shared, "ada"))
    async with line(shared, cookie) as opened:
        await asyncio.to_thread(post, f"{shared.url}/logout", headers={"Cookie": cookie}, json={})
        assert await opened.answer() == "1"
        assert await opened.enter() == ""


GUEST = "otter rope lantern"  # a password
CHANGES: dict[str, Callable[[Users], Awaitable[object]]] = {
    "signed out": lambda users: users.sign_out("guest"),
    "disabled": lambda users: users.disable("guest"),
    "another password": lambda users: users.set_password("guest", "lantern otter rope"),
    "removed": lambda users: users.remove("guest", with_stories=True),
}


@pytest.fixture
async def users(shared: Server) -> AsyncIterator[Users]:
    """All, and a guest, changed as the command does it; the guest leaves in the end."""
    database = await Database.open(f"sqlite+aiosqlite:///{shared.data / 'stories.db'}")
    users = Users(database)
    await users.add("guest", GUEST)
    yield users
    with suppress(AccountError):  # who is removed already
        await users.remove("guest", with_stories=True)
    await database.close()


@pytest.mark.parametrize("change", CHANGES)
async def test_who_is_let_in_no_more_brings_no_window_over_an_open_socket(
    shared: Server, users: Users, change: str
) -> None:
    """Nor had they to wait for their windows to be closed: here is none to close."""
    cookie = cookie_of(await asyncio.to_thread(sign_in, shared, "guest", GUEST))
    async with line(shared, cookie) as opened:
        await opened.leave()
        assert await opened.enter() == "0"
        await opened.leave()
        await CHANGES[change](users)
        assert await opened.enter() == "4"
        assert await opened.answer() == ""


async def test_nothing_stays_of_a_user_who_wrote_until_the_end(
    shared: Server, users: Users
) -> None:
    cookie = cookie_of(await asyncio.to_thread(sign_in, shared, "guest", GUEST))
    guest = await users.user("guest")

    def stored() -> int:
        with sqlite3.connect(shared.data / "stories.db") as database:
            query = "select count(*) from stories where owner = ?"
            (stories,) = database.execute(query, (guest.id,)).fetchone()
        database.close()
        return int(stories)

    async with connecting(shared, cookie) as connect:
        windows = [await connect() for _ in range(40)]

        async def begin_stories() -> None:
            for window in windows:
                if window.socket.connected:
                    await window.send("It was a dark night.")
                await asyncio.sleep(0.2)

        beginning = asyncio.create_task(begin_stories())
        command = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "storygen", "users", "remove", "guest", "--with-stories"),
            cwd=ROOT,
            env=environment(shared.data),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await command.communicate()
        assert re.fullmatch(rb"guest is removed, with [1-9]\d* stor(y|ies)\.\n", said), said
        await beginning
    assert stored() == 0


def test_the_cookie_is_for_this_page_alone_and_names_nobody(shared: Server) -> None:
    said = sign_in(shared, "bob").headers["set-cookie"].lower()
    assert "httponly" in said
    assert "samesite=lax" in said
    assert "secure" not in said
    secure = sign_in(shared, "bob", Origin=shared.url.replace("http", "https"))
    assert "secure" in secure.headers["set-cookie"].lower()
    assert sign_in(shared, "bob", Origin="https://evil.example").status_code == 403


def test_what_is_known_of_a_page_without_login_opens_nothing_here(shared: Server) -> None:
    writer = {"identifier": "writer", "display_name": None, "metadata": {}, "exp": 2**31}
    for key in ("x" * 48, "storygen" * 6):
        token = jwt.encode(writer, key, algorithm="HS256")
        for headers in (
            {"Cookie": f"access_token={token}"},
            {"Authorization": f"Bearer {token}"},
            {"Cookie": f"access_token_0={token}"},
        ):
            assert get(f"{shared.url}/user", headers=headers).status_code == 401
    assert not (shared.data / "auth_secret").exists()  # there is no key to be stolen
    assert post(f"{shared.url}/auth/header", json={}).status_code == 401
    assert post(f"{shared.url}/auth/jwt", json={}).status_code == 401


def test_nobody_is_shown_the_form_and_what_it_needs(shared: Server) -> None:
    page = get(f"{shared.url}/thread/{uuid4()}", headers={"Accept": "text/html"})
    assert page.status_code == 303
    assert page.headers["location"].startswith("/login?next=%2Fthread%2F")
    assert get(f"{shared.url}/login").status_code == 200
    assert "script" not in get(f"{shared.url}/login").text
    for path in ("/", "/user", "/avatars/x", f"/project/thread/{uuid4()}", "/api/export", "/x"):
        assert get(shared.url + path).status_code == 401, path
    polling = get(f"{shared.url}/ws/socket.io/?EIO=4&transport=polling")
    assert polling.status_code == 401


def test_polling_is_off(shared: Server, cookies: dict[str, str]) -> None:
    url = f"{shared.url}/ws/socket.io/?EIO=4&transport=polling"
    assert get(url, headers={"Cookie": cookies["bob"]}).status_code == 400


async def test_a_socket_without_a_sign_in_is_refused(shared: Server) -> None:
    for cookie in ("", f"{COOKIE}=x", "access_token=x"):
        async with connecting(shared, cookie) as connect:
            with pytest.raises(Refused):
                await connect()


def test_an_administrator_sees_how_it_goes_and_no_prose(
    shared: Server, cookies: dict[str, str]
) -> None:
    url = f"{shared.url}/api/admin"
    seen = get(url, headers={"Cookie": cookies["ada"]})
    assert [user["name"] for user in seen.json()["users"]] == ["ada", "bob", "eve"]
    assert SECRET not in seen.text
    assert get(url, headers={"Cookie": cookies["bob"]}).status_code == 403


async def test_guessing_is_slowed_down_for_names_that_exist_and_that_do_not(
    shared: Server,
) -> None:
    """Also where each guess comes from an address of its own. All at once, within any minute."""
    once = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=shared.url, timeout=PATIENCE, limits=once) as http:
        for name in ("eve", "nobody"):
            forms = [{"name": name, "password": f"guess {n}"} for n in range(25)]
            answers = await asyncio.gather(
                *(http.post("/login", data=form, headers=address()) for form in forms)
            )
            late = [answer for answer in answers if answer.status_code == 429]
            assert len(late) >= 15
            assert {answer.status_code for answer in answers} <= {401, 429}
            assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in late)


def test_it_does_not_start_without_an_account(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="python -m storygen users add NAME"):
        serve(tmp_path, STORYGEN_AUTH="password")


def test_no_word_of_a_story_and_no_secret_is_in_the_log(
    shared: Server, cookies: dict[str, str]
) -> None:
    log = shared.log.read_text()
    for secret in (SECRET, *PASSWORDS.values(), *(c.split("=")[1] for c in cookies.values())):
        assert secret not in log
    assert json.dumps("nonce-")[1:-1] not in log


# Events in the order in which they were sent


async def test_stop_ends_what_was_sent_just_before_it(ada: Connect) -> None:
    client = await ada()
    await client.set(max_new_tokens=800)  # eight seconds, where Stop came first and nobody heard
    for n in range(20):
        await client.send(f"And {n}, nonce-{n:08x}")
        await client.socket.emit("stop")
        await client.finished()
    assert max(m["output"].count("nonce") for m in client.messages.values()) < 800


async def test_messages_are_stored_in_the_order_they_were_sent(ada: Connect) -> None:
    client = await ada()
    await client.set(max_new_tokens=16)
    for n in range(8):
        await client.send(f"And {n}, nonce-{n:08x}")
    await client.finished()
    async with httpx.AsyncClient(
        base_url=client.server.url, headers={"Cookie": client.cookie}, timeout=PATIENCE
    ) as http:
        manuscript = (await http.get(f"/api/stories/{client.story_id}/export/txt")).text
    assert [int(n) for n in re.findall(r"And (\d),", manuscript)] == list(range(8))


async def test_a_flood_of_one_who_is_signed_in_is_bounded(ada: Connect) -> None:
    client = await ada()
    await client.set(max_new_tokens=800)
    await asyncio.gather(*(client.send(f"And {n}, nonce-000000ff") for n in range(200)))
    await client.until(lambda: any("asked for at once" in o for o in said(client)))
    await client.socket.emit("stop")
    await client.until(lambda: not client.is_busy)


async def test_nobody_opens_windows_without_end(bob: Connect) -> None:
    opened = 0
    with suppress(Refused):
        while opened < 200:
            await bob()
            opened += 1
    assert opened == 100


async def test_nor_sockets_that_bring_no_window(shared: Server, ada: Connect) -> None:
    cookie = cookie_of(await asyncio.to_thread(sign_in, shared, "bob"))
    lines: list[Line] = []
    try:
        with suppress(engineio.exceptions.ConnectionError):
            while len(lines) < 300:
                opened = Line()
                await opened.open(shared, cookie)
                lines.append(opened)
        assert 90 < len(lines) <= 200  # windows of the test before may not have ended
        await ada()
    finally:
        for opened in lines:
            await opened.close()


def said(client: Client) -> list[str]:
    return [message["output"] for message in client.messages.values()]
