"""The end of a running page: nothing lost, everyone told, soon, and the exit code is true. And what
machines and logs are told while it runs."""

import asyncio
import json
import re
import signal
import socket
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.protocol.conftest import PATIENCE, Client, Server, connecting, get, serve

STREAMS = 8
MUCH = 2000  # words, of which one takes 10 ms
SOON = 10.0  # seconds in which service managers want it to be over

SLOW_STORE = """
import asyncio, sys
from storygen.story.store import StoryStore
grow = StoryStore.grow_passage
async def stuck(self, *args, state="streaming", **more):
    if state == "complete":
        await asyncio.sleep(3600)
    return await grow(self, *args, state=state, **more)
StoryStore.grow_passage = stuck
from tests.protocol import serve
serve.main()
"""

FULL_DISK = """
import contextlib
from storygen.errors import DatabaseError
from storygen.story.growing import Growing
change, full = Growing.change, DatabaseError("The disk is full.")
async def grown(self, passage_id, owing):
    raise full
@contextlib.asynccontextmanager
async def refusing(self):
    if self._owed:
        raise full
    async with change(self) as connection:
        yield connection
Growing._grown, Growing.change = grown, refusing
from tests.protocol import serve
serve.main()
"""


async def writing(client: Client) -> None:
    """A passage has begun to appear."""
    await client.set(max_new_tokens=MUCH)
    await client.send("It begins.")
    await client.until(lambda: client.passage.count("mystery-") > 1)  # and no notice


@pytest.mark.own_words
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_eight_streams_are_stored_and_told_when_the_page_ends(
    tmp_path: Path, number: int
) -> None:
    page = serve(tmp_path)
    async with connecting(page, page.cookie) as connect:
        clients = [await connect() for _ in range(STREAMS)]
        await asyncio.gather(*(writing(client) for client in clients))
        seen = {client.story_id: client.passage for client in clients}
        began = time.monotonic()
        page.process.send_signal(number)
        assert await asyncio.to_thread(page.process.wait, 60) == 0
        assert time.monotonic() - began < SOON
    for client in clients:
        assert any("Your story is saved" in toast for toast in client.toasts)
    again = serve(tmp_path)
    async with connecting(again, again.cookie) as connect:
        for story_id, passage in seen.items():
            client = await connect(story_id)
            await client.until(lambda client=client: "continue" in client.actions)
            assert client.passage.startswith(passage)
            assert not any("cut off" in output for output in client.outputs)
    assert again.stop() == 0


@pytest.mark.own_words
async def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    page = serve(tmp_path, command=[sys.executable, "-c", SLOW_STORE, "{port}"])
    async with connecting(page, page.cookie) as connect:
        await writing(await connect())
        page.process.terminate()
        await asyncio.to_thread(until_said, page, "Ending")
        assert page.process.poll() is None
        page.process.terminate()
        assert await asyncio.to_thread(page.process.wait, SOON) == 128 + signal.SIGTERM


@pytest.mark.own_words
async def test_what_could_not_be_stored_is_no_success(tmp_path: Path) -> None:
    page = serve(tmp_path, command=[sys.executable, "-c", SLOW_STORE, "{port}"])
    async with connecting(page, page.cookie) as connect:
        await writing(await connect())
        began = time.monotonic()
        page.process.terminate()
        assert await asyncio.to_thread(page.process.wait, 60) == 1
        assert time.monotonic() - began < SOON
    assert "Not every passage could be stored in time" in page.log.read_text()


@pytest.mark.own_words
async def test_what_is_refused_to_the_end_is_said_and_no_success(tmp_path: Path) -> None:
    """It was left out without a word, and the page ended with 0."""
    page = serve(tmp_path, command=[sys.executable, "-c", FULL_DISK, "{port}"])
    async with connecting(page, page.cookie) as connect:
        client = await connect()
        await writing(client)
        page.process.terminate()
        assert await asyncio.to_thread(page.process.wait, 60) == 1
    told = "The end of a passage is not stored. The disk is full."
    assert client.toasts[-1] == f"storygen is being restarted. {told}"
    assert told in page.log.read_text()


async def test_a_page_without_writers_ends_with_success(tmp_path: Path) -> None:
    page = serve(tmp_path)
    assert await asyncio.to_thread(page.stop) == 0


def asking(page: Server, first: str, cookie: str, *headers: str) -> socket.socket:
    """A browser that has asked for something, and goes no further."""
    asked = socket.socket()
    asked.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    asked.connect(("127.0.0.1", page.port))
    lines = [f"{first} HTTP/1.1", f"Host: 127.0.0.1:{page.port}", f"Cookie: {cookie}", *headers]
    asked.sendall("\r\n".join([*lines, "", ""]).encode())
    return asked


def test_who_sends_or_reads_no_further_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """Such a request was waited for until the end was given up, with 1, though all was stored."""
    page = serve(tmp_path)
    cookie = page.cookie
    novel = "It rained on the roofs of the town.\n\n" * 200_000
    with httpx.Client(base_url=page.url, headers={"Cookie": cookie}, timeout=PATIENCE) as http:
        story = http.post("/api/import", params={"name": "a.txt"}, content=novel).json()
    export = f"GET /api/stories/{story['id']}/export/txt"
    with (
        asking(page, "POST /api/import?name=b.txt", cookie, "Content-Length: 90000") as drips,
        asking(page, export, cookie) as unread,
    ):
        drips.sendall(b"It began ")
        assert unread.recv(12) == b"HTTP/1.1 200"
        began = time.monotonic()
        page.process.terminate()
        assert page.process.wait(60) == 0
        assert time.monotonic() - began < SOON
    log = page.log.read_text()
    assert "The end took too long" not in log
    again = serve(tmp_path)
    kept = httpx.get(f"{again.url}/api/stories", headers={"Cookie": again.cookie}, timeout=PATIENCE)
    assert story["id"] in kept.text
    assert again.stop() == 0


def until_said(page: Server, words: str) -> None:
    """The page's log has these words."""
    deadline = time.monotonic() + 60
    while words not in page.log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def until_ready(page: Server) -> httpx.Response:
    """The answer of /ready, once it is good."""
    deadline = time.monotonic() + 60
    while (answer := get(f"{page.url}/ready")).status_code != 200:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.1)
    return answer


async def test_machines_are_answered_without_a_cookie_and_learn_no_prose(
    server: Server, connect
) -> None:
    client = await connect()
    await client.set(max_new_tokens=3)
    await client.send("The canary nonce-gardener sings.")
    await client.finished()
    answer = await asyncio.to_thread(until_ready, server)
    assert answer.json() == {"status": "ready"}
    assert get(f"{server.url}/health").json() == {"status": "ok"}
    measured = get(f"{server.url}/metrics")
    assert measured.status_code == 200
    assert 'storygen_passages_total{reason="length"}' in measured.text
    for name in ("first_token_seconds_count", "database_write_seconds_count", "windows"):
        (told,) = re.findall(rf"^storygen_{name} (\S+)", measured.text, re.MULTILINE)
        assert float(told) > 0
    for word in ("gardener", "canary", client.story_id, client.session_id):
        assert word not in measured.text
    through_proxy = get(f"{server.url}/metrics", headers={"X-Forwarded-For": "192.0.2.1"})
    assert through_proxy.status_code == 403


CANARY = "the-heir-is-the-gardener"


@pytest.mark.own_words
async def test_no_log_line_quotes_a_writer_even_where_all_is_logged(tmp_path: Path) -> None:
    page = serve(
        tmp_path,
        STORYGEN_LOG="json",
        STORYGEN_LOG_LEVEL="debug",
        STORYGEN_METRICS_TOKEN=f"{CANARY}-token",
        SQLALCHEMY_WARN_20="1",
    )
    cookie = page.cookie
    async with connecting(page, cookie) as connect, httpx.AsyncClient(base_url=page.url) as http:
        client = await connect()
        await client.set(max_new_tokens=3, temperature=CANARY, model=CANARY)
        for text in (f"{CANARY} nonce-{CANARY}", f"{CANARY} explode", f"/title {CANARY}"):
            await client.send(text)
            await client.finished()
        for event in ("client_message", "edit_message", "chat_settings_edit", "window_message"):
            await client.socket.emit(event, {CANARY: [CANARY], "message": {"id": CANARY}})
        await client.socket.emit(CANARY, CANARY)
        headers = {"Cookie": cookie}
        for path in ("/api/stories", f"/api/stories/{CANARY}/tree", f"/{CANARY}", "/api/import"):
            params = {"search": CANARY, "name": f"{CANARY}.docx", "before": CANARY}
            await http.get(path, params=params, headers=headers)
            body = f'{{"title": "{CANARY}"'
            await http.post(path, params=params, headers=headers, content=body)
        await http.post("/project/action", headers=headers, json={CANARY: CANARY})
        await http.post("/project/threads", headers=headers, json={"filter": {"search": CANARY}})
        await http.put("/project/thread", headers=headers, json={"threadId": CANARY})
        await http.delete(f"/project/thread?{CANARY}", headers=headers)
        await http.get("/metrics", headers={"Authorization": f"Bearer {CANARY}\u00e9".encode()})
        await http.get("/", headers={"Cookie": f"access_token={CANARY}", "Host": f"{CANARY}.x"})
        await client.socket.emit("client_message", b"\xff" + CANARY.encode())
    assert await asyncio.to_thread(page.stop) == 0
    log = page.said()
    assert '"number": ' in log
    assert '"error": ["RuntimeError"]' in log
    for secret in (CANARY, cookie.partition("=")[2], client.session_id):
        assert secret not in log
    begun = log[log.index("{") :]  # once the settings are read
    assert [line for line in begun.splitlines() if not line.startswith("{")] == []


LAUNCH = ["env", "STORYGEN_PORT={port}", sys.executable, "-m", "storygen.launch"]


def test_every_line_of_a_started_page_is_json_from_the_first_to_the_last(
    tmp_path: Path, tiny_weights: Path
) -> None:
    """Ours, and what Chainlit, uvicorn, Alembic and warnings have to say."""
    forms = {"STORYGEN_LOG": "json", "STORYGEN_LOG_LEVEL": "debug", "PYTHONWARNINGS": "always"}
    page = serve(
        tmp_path, LAUNCH, STORYGEN_WEIGHTS_DIR=str(tiny_weights), STORYGEN_DTYPE="fp32", **forms
    )
    until_ready(page)
    with socket.create_connection(("127.0.0.1", page.port)) as strange:
        strange.sendall(b"\x00\r\n\r\n")
        strange.recv(100)
    assert page.stop() == 0
    entries = [json.loads(line) for line in page.log.read_text().splitlines()]
    assert {"time", "level", "logger", "message"} <= set.intersection(*map(set, entries))
    messages = [entry["message"] for entry in entries]
    assert f"The page is at {page.url}" in messages
    assert "/ready" in [entry.get("route") for entry in entries]
    assert messages[-1].startswith("Ending")
