"""A window that reads nothing, on the real page."""

import asyncio
from contextlib import suppress

import pytest

from tests.protocol.conftest import PATIENCE, Client, Connect, Server
from tests.protocol.deaf import Deaf

GREW_AT_MOST = 8  # MB
BEHIND = "A window did not read what it was sent and was closed."
ASKED = 3000  # times for the form of the settings, which takes some kilobytes


@pytest.mark.own_words
async def test_a_window_that_reads_nothing_is_closed_before_it_costs_memory(
    connect: Connect, server: Server, cookie: str
) -> None:
    other: Client = await connect()
    for n in range(200):  # after which the server has what this needs
        await other.socket.emit("chat_settings_change", {"max_new_tokens": 20})
        await other.until(lambda n=n: len(other.settings) > n)
    closed, before, most = server.said().count(BEHIND), server.memory, 0.0
    async with Deaf(server, cookie) as deaf:
        with suppress(OSError):  # it is closed
            for n in range(ASKED):
                await deaf.emit("chat_settings_change", {"max_new_tokens": 20 + n % 2})
                if n % 50 == 0:
                    await asyncio.sleep(0.05)
                    most = max(most, server.memory)
                    if server.said().count(BEHIND) > closed:
                        break
        async with asyncio.timeout(PATIENCE):
            while server.said().count(BEHIND) == closed:
                await asyncio.sleep(0.1)
                most = max(most, server.memory)
    assert most - before <= GREW_AT_MOST
    await other.send("It goes on, nonce-others")
    await other.finished()
    assert other.passage.count("nonce-others") == 20
