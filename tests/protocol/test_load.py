"""More windows than the engine has room for, on the real page and the real engine."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.protocol.conftest import Client, Connect, Server, connecting, serve
from tests.protocol.scripted import LOG
from tests.protocol.weights import make_weights

COMMAND = [sys.executable, "-m", "tests.protocol.scripted", "{port}"]
LONG, SHORT = 4000, 30  # tokens; a passage of LONG ends when it is stopped


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A page that writes one passage at a time, and lets one wait."""
    folder = tmp_path_factory.mktemp("narrow")
    server = serve(
        folder / "data",
        COMMAND,
        STORYGEN_WEIGHTS_DIR=str(make_weights(folder / "weights", "scripted")),
        STORYGEN_FIRST_MODEL="scripted",
        STORYGEN_DTYPE="fp16",  # nothing is compiled
        STORYGEN_SLOTS="1",
        STORYGEN_QUEUE_SIZE="1",
    )
    yield server
    server.stop()


@pytest.fixture
async def open_window(narrow: Server) -> AsyncIterator[Connect]:
    """Opens a window of the narrow page."""
    async with connecting(narrow, narrow.cookie) as connect:
        yield connect


def log(server: Server, event: str) -> list[dict[str, Any]]:
    """What the server wrote down."""
    lines = (Path(server.data) / LOG).read_text().splitlines()
    return [told for line in lines if (told := json.loads(line))["event"] == event]


async def writing(client: Client, nonce: str, tokens: int = LONG) -> None:
    """A passage is being written in a window."""
    await client.set(max_new_tokens=tokens)
    await client.send(f"It begins, {nonce}")
    await client.until(lambda: nonce in client.passage)


async def shows(client: Client, text: str) -> None:
    """Wait until a window says something."""
    await client.until(lambda: any(text in output for output in client.outputs))


@pytest.mark.own_words
async def test_a_full_page_shows_the_place_in_line_and_refuses_before_it_reads(
    open_window: Connect, narrow: Server
) -> None:
    first, second, third = [await open_window() for _ in range(3)]
    await writing(first, "nonce-00000001")
    await second.set(max_new_tokens=SHORT)
    await second.send("It begins, nonce-00000002")
    await shows(second, "1st in line")
    await third.send("It begins, nonce-00000003")
    await shows(third, "passages being written: 1, waiting: 1")
    await shows(third, "Try again in")
    await shows(third, "It begins, nonce-00000003")  # stored all the same
    await first.socket.emit("stop")
    await second.finished()
    assert "nonce-00000002" in second.passage
    assert not any("in line" in output for output in second.outputs)
    read = {told["user"] for told in log(narrow, "encode")}
    assert {"nonce-00000001", "nonce-00000002"} <= read
    assert "nonce-00000003" not in read


@pytest.mark.own_words
async def test_stop_and_a_closed_window_leave_the_line(open_window: Connect) -> None:
    first, second = await open_window(), await open_window()
    await writing(first, "nonce-0000000a")
    for leave in (second.socket.emit("stop"), second.socket.disconnect()):
        await second.set(max_new_tokens=SHORT)
        await second.send("It goes on, nonce-0000000b")
        await shows(second, "1st in line")
        await leave
        third = await open_window()
        await third.send("It begins, nonce-0000000c")
        await shows(third, "1st in line")  # there is room for one again
        await third.socket.emit("stop")
        await third.finished()
    assert "nonce-0000000b" not in first.passage


async def test_a_flood_is_bounded_and_said_to_be(open_window: Connect) -> None:
    client = await open_window()
    await client.set(max_new_tokens=LONG)
    await asyncio.gather(*(client.send(f"And {n}, nonce-000000ff") for n in range(200)))
    await shows(client, "things were asked for at once")
    await client.socket.emit("stop")
    await client.until(lambda: not client.is_busy)
    assert client.socket.connected
