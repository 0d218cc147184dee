"""Two chats over one PostgreSQL behind nginx: whatever was begun at one goes on at the other."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.frontends.conftest import NAME, Chat, Town, proxying
from tests.protocol.conftest import PATIENCE, Client, connecting, free_port, get, post

LONG = 1500  # words, of which one takes 10 ms


@pytest.fixture(scope="module")
def cookie(town: Town) -> str:
    """Of a browser that is signed in and not introduced to the proxy yet."""
    return town.sign_in()


@pytest.fixture
async def opening(town: Town, cookie: str) -> AsyncIterator[Any]:
    """Opens windows through the proxy, in a browser of the chat that one names."""
    clients: list[Client] = []

    async def opened(chat: Chat, story_id: str = "", signed_in: str = cookie) -> Client:
        cookies = f"{signed_in}; {town.browser_of(chat)}"
        client = Client(town, cookies, story_id)  # type: ignore[arg-type]  # it has a url
        clients.append(client)
        await client.connect()
        return client

    yield opened
    for client in clients:
        await client.socket.disconnect()


async def told(client: Client, text: str, words: int = 5) -> None:
    """A message is sent and answered."""
    await client.set(max_new_tokens=words)
    await client.send(text)
    await client.finished()


def test_a_browser_is_introduced_once_and_stays_with_its_chat(town: Town, cookie: str) -> None:
    first = get(f"{town.url}/", headers={"Cookie": cookie, "Accept": "text/html"})
    assert first.status_code == 200
    said = first.headers["set-cookie"]
    assert "HttpOnly; SameSite=Lax" in said
    own = said.partition(";")[0]
    seen = set()
    for _ in range(10):
        again = get(f"{town.url}/", headers={"Cookie": f"{cookie}; {own}"})
        assert "set-cookie" not in again.headers
        seen.add(again.headers["x-chat"])
    assert len(seen) == 1
    assert {town.at({"Cookie": f"storygen_browser={n:032x}"}).port for n in range(40)} == {
        chat.port for chat in town.chats
    }


def test_a_browser_that_came_by_tls_is_told_to_stay_with_it(town: Town) -> None:
    for scheme, said in (("https", "max-age=31536000"), ("http", None)):
        for path in ("/login", "/metrics"):  # an answer of a chat, and the proxy's own
            answer = get(f"{town.url}{path}", headers={"X-Forwarded-Proto": scheme})
            assert answer.headers.get("strict-transport-security") == said


def test_a_sign_in_is_known_at_both(town: Town, cookie: str) -> None:
    for chat in town.chats:
        answer = get(f"{chat.url}/user", headers={"Cookie": cookie})
        assert answer.json()["display_name"] == NAME


def test_machines_ask_each_chat_itself(town: Town) -> None:
    for path in ("/metrics", "/ready"):
        assert get(town.url + path).status_code == 403
    for chat in town.chats:
        assert get(f"{chat.url}/metrics").status_code == 200


def test_who_asks_is_whom_the_proxy_with_tls_names_and_nobody_else(tmp_path: Path) -> None:
    class Told(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("told", self.headers["X-Forwarded-For"])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Told) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with proxying(free_port(), 2 * [server.server_port], tmp_path) as url:
            for here, there in (("127.0.0.1", "203.0.113.5"), ("127.0.0.2", "127.0.0.2")):
                way = httpx.HTTPTransport(local_address=here)
                with httpx.Client(transport=way, timeout=PATIENCE) as http:
                    answer = http.get(f"{url}/login", headers={"X-Forwarded-For": "203.0.113.5"})
                assert answer.headers["told"] == there
        server.shutdown()


async def test_guesses_from_one_address_are_counted_at_one_chat(town: Town) -> None:
    another = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
    async with httpx.AsyncClient(base_url=town.url, timeout=PATIENCE, transport=another) as http:
        forms = [{"name": "nobody", "password": f"guess {n}"} for n in range(25)]
        cookies = [{"Cookie": f"storygen_browser={n:032x}"} for n in range(25)]
        answers = await asyncio.gather(
            *(http.post("/login", data=f, headers=c) for f, c in zip(forms, cookies, strict=True))
        )
    assert sum(answer.status_code == 429 for answer in answers) >= 14


async def test_a_story_is_listed_opened_and_continued_at_either(town: Town, opening: Any) -> None:
    one, two = town.chats
    begun = await opening(one)
    await told(begun, "It begins, nonce-one.")
    there = await opening(two, begun.story_id)
    await there.until(lambda: "continue" in there.actions and not there.is_busy)
    assert there.outputs[:2] == begun.outputs[:2]
    await told(there, "It goes on, nonce-two.")
    assert "nonce-two nonce-two" in there.passage
    answer = get(f"{one.url}/api/stories", headers={"Cookie": begun.cookie})
    assert begun.story_id in [story["id"] for story in answer.json()["stories"]]
    written = get(
        f"{one.url}/api/stories/{begun.story_id}/manuscript", headers={"Cookie": begun.cookie}
    )
    texts = [passage["text"] for passage in written.json()["passages"]]
    assert len(texts) == 4
    assert texts[2] == "It goes on, nonce-two."
    # The window at the other chat was told that the story has another end by now.
    heads = [p["id"] for p in written.json()["passages"]][-1:]
    await begun.until(lambda: heads == [c["head"] for c in changes(begun)][-1:])


def changes(client: Client) -> list[dict[str, Any]]:
    """What a window was told of where its story stands."""
    news = [data for _, event, data in client.events if event == "window_message"]
    return [n["storygen"]["changed"] for n in news if "changed" in n.get("storygen", {})]


async def test_a_message_at_one_chat_ends_the_passage_at_the_other(
    town: Town, opening: Any
) -> None:
    one, two = town.chats
    begun = await opening(one)
    await begun.set(max_new_tokens=LONG)
    await begun.send("It begins, nonce-one.")
    await begun.until(lambda: len(begun.passage) > 20)
    there = await opening(two, begun.story_id)
    began = time.monotonic()
    await told(there, "Enough, nonce-two.")
    await begun.finished()
    assert time.monotonic() - began < LONG * 0.01  # it was not waited for
    written = get(
        f"{two.url}/api/stories/{begun.story_id}/manuscript", headers={"Cookie": begun.cookie}
    ).json()["passages"]
    assert [passage["role"] for passage in written] == ["writer", "model", "writer", "model"]
    assert {passage["state"] for passage in written} == {"complete"}
    assert written[1]["text"].startswith(" nonce-one")


async def test_signing_out_at_one_chat_ends_the_windows_at_the_other(
    town: Town, opening: Any
) -> None:
    (one, two), cookie = town.chats, town.sign_in()
    here, there = await opening(one, signed_in=cookie), await opening(two, signed_in=cookie)
    answer = post(f"{one.url}/logout", headers={"Cookie": cookie}, json={})
    assert answer.json() == {"success": True}
    await asyncio.wait_for(here.socket.wait(), PATIENCE)
    await asyncio.wait_for(there.socket.wait(), PATIENCE)
    assert any(event == "reload" for _, event, _ in there.events)
    assert get(f"{two.url}/user", headers={"Cookie": cookie}).status_code == 401


async def test_a_killed_chats_writer_goes_on_at_the_other_with_all_that_was_shown(
    town: Town, cookie: str
) -> None:
    """And its windows have their buttons, also once the chat that was killed is back."""
    chat = town.chats[0]
    browser = f"{cookie}; {town.browser_of(chat)}"
    proxy: Any = town
    async with connecting(proxy, browser) as connect:
        window = await connect()
        await told(window, "It begins, nonce-one.")
        await window.set(max_new_tokens=LONG)
        await window.send("It goes on, nonce-two.")
        await window.until(lambda: len(window.passage) > 100)
        await asyncio.sleep(1)  # as much of a reply as may be lost
        shown = window.outputs[:3]
        chat.kill()
        await window.socket.wait()

        again = await connect(window.story_id)
        await again.until(lambda: "continue" in again.actions)
        assert town.at({"Cookie": browser}) is town.other(chat)
        assert again.outputs[:3] == shown
        half, said = again.outputs[3:]
        assert "nonce-two nonce-two" in half
        assert "cut off" in said

        await asyncio.to_thread(chat.start)
        await asyncio.to_thread(town.until_at, chat, browser)
        # The window's socket is at the other chat, its requests go to the old one by now.
        await again.set(max_new_tokens=5)
        assert (await again.press("continue")).status_code == 200
        await again.finished()
        assert again.outputs[3] == half
        assert again.passage != half
