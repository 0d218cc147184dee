"""What a window leaves unread."""

import asyncio
from types import SimpleNamespace

import pytest

from storygen.chat.sockets import MOST_CHARACTERS, MOST_PACKETS, drop, is_behind


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
