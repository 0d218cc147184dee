"""What a window says below the events: packets and frames as bytes, which a page never sends so."""

import asyncio
import json
from contextlib import suppress
from uuid import uuid4

import pytest
from engineio.packet import MESSAGE
from engineio.packet import Packet as Frame

from tests.protocol.conftest import PATIENCE, Client, errors_in
from tests.security.town import CANARY, Town

# Engine.IO's, whose first character is their kind; there are 0 to 6.
FRAMES = [
    "",
    "x",
    "7",
    "8[]",
    '9["stop"]',
    "2probe",
    "5",
    "b====",
    "bQUJD",
    "4[1]",
    '4{"a":1}',
    "4" + "[" * 100_000,
]
# Socket.IO's, likewise: kind, namespace, number, JSON.
PACKETS = [
    *(
        "2",
        "2[]",
        "2{}",
        "2x",
        "2[1]",
        "2[null]",
        "2[{}]",
        "2[[1]]",
        '2["stop",1,2]',
        "9",
        "4",
        "1x",
    ),
    *("2" + "[" * 100_000, f'2["stop",{"9" * 200}]', f"2{'9' * 200}", "2/none,[]", "0/none,", "00"),
    *('51-["x",{"_placeholder":true,"num":0}]', '61-["x"]', '3["x"]', '31["x"]', "31{}", "3"),
    *('2["clear_session",1]', '2["connection_successful",{}]', '299["stop"]', '2["\\ud800"]'),
]


@pytest.fixture
def known(town: Town) -> int:
    """How many errors were met before."""
    return len(errors_in(town.server.said()))


async def test_packets_that_cannot_be_read_are_left_aside(town: Town, known: int) -> None:
    client = Client(town.server, town.guises["other"].cookie)
    await client.connect()
    for packet in PACKETS:
        await client.socket.eio._send_packet(Frame(MESSAGE, packet))
    await asyncio.sleep(0.1)
    await client.socket.disconnect()
    assert errors_in(town.server.said())[known:] == []


@pytest.mark.parametrize("frame", FRAMES, ids=range(len(FRAMES)))
async def test_frames_that_are_none_are_no_error_of_the_server(
    town: Town, known: int, frame: str
) -> None:
    client = Client(town.server, town.guises["other"].cookie)
    await client.connect()
    await client.socket.eio.ws.send_str(frame)
    await asyncio.sleep(0.1)
    await client.socket.disconnect()
    assert errors_in(town.server.said())[known:] == []


async def test_a_window_cannot_say_who_it_is_of(town: Town, known: int) -> None:
    """The event by which the socket server tells us who came was taken from windows, too."""
    client = Client(town.server, town.guises["other"].cookie)
    await client.connect()
    says = {"threadId": town.victim.story, "sessionId": str(uuid4()), "userEnv": "{}"}
    scope = {"storygen.visitor": {"owner": town.owner}}
    for environ in ({}, {"asgi.scope": {}}, {"asgi.scope": scope, "HTTP_COOKIE": "x=y"}):
        await client.socket.emit("connect", (environ, says))
        await client.socket.emit("disconnect", "gone")
        await client.socket.emit("connection_successful")
    await client.set(max_new_tokens=1)
    await client.send("Mine.")
    await client.until(lambda: any("Mine." in output for output in client.outputs))
    assert CANARY not in json.dumps([data for _, _, data in client.events])
    await client.socket.disconnect()
    assert errors_in(town.server.said())[known:] == []


@pytest.mark.parametrize(
    "frames",
    [['42["x","' + "a" * 4_900_000 + '"]'] * 5, ["4[" + "[]," * 100_000 + "1]"]],
    ids=["more than a user may send", "what the socket server would parse"],
)
async def test_a_window_that_floods_is_closed_and_others_are_not(
    town: Town, known: int, frames: list[str]
) -> None:
    flooding, other = (Client(town.server, town.guises[who].cookie) for who in ("owner", "other"))
    await flooding.connect()
    await other.connect()
    with suppress(ConnectionError):  # it is closed
        for frame in frames:
            await flooding.socket.eio.ws.send_str(frame)
    async with asyncio.timeout(PATIENCE):
        while flooding.socket.connected:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
    await other.set(max_new_tokens=2)
    await other.send("It goes on: nonce-beside")
    await other.finished()
    assert other.passage.endswith("nonce-beside nonce-beside")
    await other.socket.disconnect()
    assert errors_in(town.server.said())[known:] == []
