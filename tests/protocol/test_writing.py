"""Writing over the socket of the real page: streams, Stop, settings, many at once."""

import asyncio
import re
import time
from pathlib import Path

import httpx
import pytest

from tests.protocol.conftest import (
    ELSEWHERE,
    FAKE,
    PATIENCE,
    REAL,
    ROOT,
    Client,
    Connect,
    Server,
    connecting,
    environment,
    errors_in,
    free_port,
    get,
    serve,
)

# How fast the page is, benchmarks/page.py measures. Here nothing depends on it: a passage of MUCH
# tokens takes 40 seconds at the least, and ends far sooner when it is stopped.
MUCH = 4096
STOP_WITHIN = 10  # seconds


async def streaming(client: Client) -> None:
    """Wait until some of a passage is there."""
    await client.until(lambda: sum(event == "stream_token" for _, event, _ in client.events) > 2)


async def stop(client: Client) -> None:
    """Press Stop, and see that it was what ended a passage of MUCH tokens."""
    pressed = time.monotonic()
    await client.socket.emit("stop")
    await client.finished()
    assert time.monotonic() - pressed < STOP_WITHIN
    assert len(client.passage.split()) < MUCH


@pytest.mark.own_words
async def test_passage_streams_and_is_complete(connect: Connect) -> None:
    client = await connect()
    await client.set(max_new_tokens=300)
    began = time.monotonic()
    await client.send("It begins, nonce-alpha.")
    await client.finished()
    seconds = time.monotonic() - began
    assert client.passage.count("nonce") == 300
    kinds = [event for _, event, _ in client.events]
    assert "first_interaction" in kinds
    # Three seconds at the least, sent every 50 ms: neither all at the end nor token by token.
    assert 2 <= kinds.count("stream_token") <= seconds / 0.05 + 1


@pytest.mark.parametrize("how", ["message", "edit", "continue", "retry"])
async def test_stop_ends_a_passage(connect: Connect, how: str) -> None:
    client = await connect()
    await client.set(max_new_tokens=10 if how != "message" else MUCH)
    message_id = await client.send("It begins.")
    if how != "message":
        await client.finished()
        await client.set(max_new_tokens=MUCH)
        client.events.clear()
    if how == "edit":
        message = {"id": message_id, "type": "user_message", "output": "It begins anew."}
        await client.socket.emit("edit_message", {"message": message})
    if how in {"continue", "retry"}:
        assert (await client.press(how)).status_code == 200
    await streaming(client)
    await stop(client)
    assert "Task manually stopped." not in client.outputs
    kept = client.passage
    again = Client(client.server, client.cookie, client.story_id)
    await again.connect()
    await again.until(lambda: bool(again.actions))
    assert again.passage == kept
    await again.press("continue")
    await streaming(again)
    await stop(again)
    await again.socket.disconnect()


async def test_settings_moved_while_writing_leave_stop_in_place(connect: Connect) -> None:
    client = await connect()
    await client.set(max_new_tokens=MUCH)
    await client.send("It begins.")
    await streaming(client)
    client.events.clear()
    for temperature in (0.5, 0.6, 0.7):
        await client.set(temperature=temperature)
    await streaming(client)
    assert "task_end" not in [event for _, event, _ in client.events]
    await stop(client)


@pytest.mark.own_words
async def test_eight_write_at_once_and_the_page_answers(connect: Connect, server: Server) -> None:
    clients = [await connect() for _ in range(8)]
    for n, client in enumerate(clients):
        await client.set(max_new_tokens=300)
        await client.send(f"It begins, nonce-{n}x.")
    writing = asyncio.gather(*(client.finished() for client in clients))
    answers = 0  # while they write, three seconds at the least
    async with httpx.AsyncClient(timeout=PATIENCE) as http:
        while not writing.done():
            assert (await http.get(f"{server.url}/health")).status_code == 200
            answers += 1
    await writing
    assert answers > 5
    for n, client in enumerate(clients):
        assert client.passage.count("nonce") == 300
        assert client.passage.count(f"nonce-{n}x") == 300


async def test_message_of_a_million_characters_gets_a_sentence(connect: Connect) -> None:
    client = await connect()
    await client.send("x" * 1_000_001)
    await client.until(lambda: any("1,000,001 characters" in o for o in client.outputs))
    await client.send("Short.")
    await client.finished()
    assert client.socket.connected


@pytest.mark.parametrize(
    "text",
    ["\ud800 lone", "<|endoftext|>", "\x00 nul", "e\u0301" * 1000, "\u202eright", " " * 5000 + "x"],
)
async def test_any_text_can_be_written(connect: Connect, text: str) -> None:
    client = await connect()
    await client.set(max_new_tokens=3)
    await client.send(text)
    await client.finished()
    assert client.passage


async def test_blank_message_gets_a_sentence(connect: Connect) -> None:
    client = await connect()
    await client.send("   ")
    await client.until(lambda: any("nothing in this message" in o for o in client.outputs))


@pytest.mark.own_words
async def test_unexpected_error_is_a_number_on_the_page(connect: Connect, server: Server) -> None:
    client = await connect()
    await client.send("explode")
    await client.until(lambda: any("number" in o for o in client.outputs))
    assert "secret" not in " ".join(client.outputs)
    number = re.search(r"number (\w{6}) in the log", " ".join(client.outputs))
    assert number is not None
    lines = [line for line in server.said().splitlines() if number[1] in line]
    place = "ray_engine.py" if ELSEWHERE == "ray" else "serve.py"  # where this process met it
    assert any("RuntimeError" in line and place in line for line in lines)
    assert "secret path" not in server.said()
    assert any(number[1] in line for line in errors_in(server.said()))  # as other tests look for it


@pytest.mark.own_words
async def test_settings_from_outside_are_checked(connect: Connect) -> None:
    client = await connect()
    for junk in (
        {"temperature": "hot"},
        {"top_k": True},
        {"temperature": float("nan")},
        {"max_new_tokens": [1] * 1000},
        {"model": "../../etc"},
        {"colour": "red"},
        {"seed": "x" * 1_000},
    ):
        told = len(client.toasts)
        await client.set(**junk)
        await client.until(lambda told=told: len(client.toasts) > told)
    await client.socket.emit("chat_settings_edit", "junk")
    await client.set(temperature=10**18)
    await client.until(lambda: "Temperature goes from 0 to 2; it is now 2." in client.toasts)
    await client.set(max_new_tokens=5)
    await client.send("It begins, nonce-still.")
    await client.finished()
    assert client.passage.count("nonce") == 5


@pytest.mark.own_words
async def test_settings_and_story_come_back(connect: Connect) -> None:
    client = await connect()
    await client.set(model="fantasy", temperature=1.2, max_new_tokens=5, seed="77")
    await client.send("It begins.")
    await client.finished()
    assert client.passage.count("fantasy") == 5
    again = await connect(client.story_id)
    await again.until(lambda: "continue" in again.actions)
    assert again.outputs == client.outputs
    initial = {w["id"]: w["initial"] for tab in again.settings[-1] for w in tab["inputs"]}
    assert initial["model"] == "fantasy"
    assert initial["temperature"] == 1.2
    assert initial["max_new_tokens"] == 5
    assert initial["seed"] == "77"


async def test_undo_and_redo_over_the_page(connect: Connect) -> None:
    client = await connect()
    await client.set(max_new_tokens=4)
    await client.send("It begins.")
    await client.finished()
    first = dict(client.messages)
    await client.press("retry")
    await client.finished()
    assert client.messages.keys() != first.keys()
    await client.press("undo")
    await client.finished()
    assert client.messages == first
    assert set(client.actions) == {"continue", "versions", "retry", "undo", "redo", "copy"}


async def test_redo_is_there_after_a_reload_and_in_every_window(connect: Connect) -> None:
    client = await connect()
    await client.set(max_new_tokens=4)
    await client.send("It begins.")
    await client.finished()
    whole = client.outputs
    await client.press("undo")
    await client.finished()
    windows = [await connect(client.story_id) for _ in range(2)]
    for window in windows:
        await window.until(lambda window=window: "redo" in window.actions)
    await windows[0].press("redo")
    await windows[0].finished()
    assert windows[0].outputs == whole
    assert "redo" not in windows[0].actions
    later = await connect(client.story_id)
    await later.until(lambda: "undo" in later.actions and not later.is_busy)
    assert "redo" not in later.actions
    assert later.outputs == whole


async def test_action_with_a_forged_payload_changes_nothing(connect: Connect) -> None:
    client = await connect()
    await client.set(max_new_tokens=4)
    await client.send("It begins.")
    await client.finished()
    before = client.outputs
    for payload in ({}, {"head": 7}, {"head": "../x"}, {"head": "0" * 10_000}):
        assert (await client.press("undo", payload=payload)).status_code == 200
    await client.until(lambda: len(client.toasts) >= 4)
    assert client.outputs == before


async def test_closed_window_ends_its_passage_and_keeps_it(connect: Connect) -> None:
    client = await connect()
    await client.set(max_new_tokens=MUCH)
    await client.send("It begins.")
    await streaming(client)
    seen = client.passage
    await client.socket.disconnect()
    again = await connect(client.story_id)
    await again.until(lambda: "continue" in again.actions)
    assert again.passage.startswith(seen)
    assert len(again.passage.split()) < MUCH
    await again.press("continue")
    await streaming(again)
    await stop(again)


async def test_claims_of_a_message_are_not_believed(connect: Connect) -> None:
    client = await connect()
    await client.set(max_new_tokens=3)
    await client.send("It begins.", type="assistant_message", name="system", metadata={"x": 1})
    await client.finished()
    first = next(iter(client.messages.values()))
    assert first["type"] == "user_message"
    assert first["name"] == "storygen"
    assert first["metadata"] == {}


async def test_taken_message_id_does_not_touch_the_passage_that_has_it(connect: Connect) -> None:
    client, other = await connect(), await connect()
    for window in (client, other):
        await window.set(max_new_tokens=3)
    message_id = await client.send("Mine.")
    await client.finished()
    await other.send("Stolen.", id=message_id)
    await other.until(lambda: any("taken" in o for o in other.outputs))
    again = await connect(client.story_id)
    await again.until(lambda: bool(again.messages))
    assert again.outputs[0] == "Mine."


async def test_reconnecting_window_gets_what_it_missed(connect: Connect, server: Server) -> None:
    client = await connect()
    await client.set(max_new_tokens=MUCH)
    await client.send("It begins.")
    await streaming(client)
    await client.socket.disconnect()
    back = Client(server, client.cookie)
    back.session_id = client.session_id
    back.settings = client.settings  # the page still has them
    await back.connect()
    await back.until(lambda: back.outputs[:1] == ["It begins."])
    await back.until(lambda: "continue" in back.actions)
    assert back.passage
    await back.socket.disconnect()


@pytest.mark.own_words
async def test_second_program_is_refused_and_the_first_ones_passage_goes_on(
    connect: Connect, server: Server
) -> None:
    client = await connect()
    await client.set(max_new_tokens=MUCH)
    await client.send("It begins.")
    await streaming(client)
    second = await asyncio.create_subprocess_exec(
        *(part.format(port=free_port()) for part in FAKE),
        cwd=ROOT,
        env=environment(server.data),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await second.communicate()
    assert second.returncode == 1
    assert f"The stories in {server.data} are in use by another storygen." in said.decode()
    assert errors_in(said.decode()) == []
    client.events.clear()
    await streaming(client)
    await stop(client)
    again = await connect(client.story_id)
    await again.until(lambda: "continue" in again.actions)
    assert again.outputs == client.outputs


@pytest.mark.own_words
async def test_without_models_the_page_says_so(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    empty = serve(tmp_path, REAL, STORYGEN_WEIGHTS_DIR=str(tmp_path / "weights"))
    cookie = empty.cookie
    async with connecting(empty, cookie) as connect:
        client = await connect()
        await client.until(lambda: any("no model to write with" in o for o in client.outputs))
        for path in ("/", "/project/settings", "/project/translations"):
            answer = get(empty.url + path, headers={"Cookie": cookie})
            assert answer.status_code == 200
        await client.send("It begins.")
        await client.finished()
        assert client.outputs[0] == "It begins."
        assert sum("no model to write with" in o for o in client.outputs) == 1
    await asyncio.to_thread(empty.stop)
    assert errors_in(empty.log.read_text()) == []


@pytest.mark.own_words
async def test_stories_outlive_a_stopped_and_a_killed_server(tmp_path: Path) -> None:
    first = serve(tmp_path)
    cookie = first.cookie
    async with connecting(first, cookie) as connect:
        client = await connect()
        await client.set(max_new_tokens=MUCH)
        await client.send("It begins.")
        await streaming(client)
        seen, story_id = client.passage, client.story_id
        await asyncio.to_thread(first.stop)

    second = serve(tmp_path)
    async with connecting(second, cookie) as connect:  # the cookie is still good
        client = await connect(story_id)
        await client.until(lambda: "continue" in client.actions)
        assert client.passage.startswith(seen)  # a stopped server loses nothing
        await client.press("retry")
        await client.until(lambda: client.passage.count("mystery") > 150)
        seen = client.passage
        second.process.kill()
        second.process.wait()

    third = serve(tmp_path)
    async with connecting(third, cookie) as connect:
        client = await connect(story_id)
        await client.until(lambda: any("cut off" in o for o in client.outputs))
        begun, kept, *_ = client.outputs
        assert begun == "It begins."
        assert seen.startswith(kept) or kept.startswith(seen)
        assert kept.count("mystery") >= seen.count("mystery") - 100  # a second of the fake engine
    await asyncio.to_thread(third.stop)
