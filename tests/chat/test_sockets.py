"""What a window leaves unread, and what is read of what it says."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from storygen.chat.sockets import (
    MOST_CHARACTERS,
    MOST_PACKETS,
    Said,
    UnreadableError,
    drop,
    is_behind,
    is_packet,
)


class Socket:
    """An engineio socket whose window reads nothing."""

    def __init__(self, *packets: str) -> None:
        self.queue: asyncio.Queue[SimpleNamespace | None] = asyncio.Queue()
        for data in packets:
            self.queue.put_nowait(SimpleNamespace(data=data))
        self.closed = ""

    async def close(self, *, wait: bool, abort: bool) -> None:
        self.closed = f"wait={wait} abort={abort}"


@pytest.mark.parametrize(
    ("packets", "behind"),
    [
        ([], False),
        (["x" * 2 * MOST_CHARACTERS], False),  # a whole story, at once
        (["x" * MOST_CHARACTERS] * 2, False),
        (["x" * MOST_CHARACTERS] * 3, True),
        (["x"] * MOST_PACKETS, False),
        (["x"] * (MOST_PACKETS + 1), True),
    ],
)
async def test_a_window_is_behind_when_too_much_waits(packets: list[str], behind: bool) -> None:
    assert is_behind(Socket(*packets)) is behind


async def test_a_dropped_window_leaves_nothing_in_memory() -> None:
    socket = Socket(*["x"] * 1000)
    await drop(socket)
    assert socket.closed == "wait=False abort=True"
    assert socket.queue.qsize() == 1
    assert socket.queue.get_nowait() is None


@pytest.mark.parametrize(
    "said",
    ['2["x",' + "[]," * 100_000 + "1]", '0{"a":[' + "{}," * 100_000 + "1]}", "31[" + "1," * 9000],
)
def test_a_packet_of_many_values_is_never_parsed(
    said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five million characters of them took a second, in which nobody's words moved."""
    monkeypatch.setattr(Said, "json", None)
    with pytest.raises(UnreadableError):
        Said(encoded_packet=said)


@pytest.mark.parametrize("text", ["He said, [so], ", '"', "\\", "\n", "\u9727"])
def test_a_message_of_any_million_characters_is_read(text: str) -> None:
    message = {"message": {"output": text * (1_000_000 // len(text))}, "fileReferences": []}
    for ascii_only in (False, True):
        said = "2" + json.dumps(["client_message", message], ensure_ascii=ascii_only)
        assert Said(encoded_packet=said).data == ["client_message", message]


def test_a_frame_that_the_socket_server_would_parse_itself_is_no_packet() -> None:
    assert is_packet('42["stop"]')
    assert not any(is_packet(said) for said in ('4["stop"]', '4{"a":1}', "6[[]]", "bAAAA", b"42[]"))
