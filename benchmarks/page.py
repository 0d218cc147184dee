"""How soon the page answers while eight write, and how soon Stop stops.

    python -m benchmarks.page [--rounds 50] [--shipped]

Socket clients on the real page, first with an engine that writes a token every 10 ms at no cost,
then, with --shipped, with the first shipped model. Prints a row a measure, in milliseconds, and for
that model how fast passages come through the page, beside the engine alone. Needs what the tests
need (requirements-dev.txt).
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.watch import watched
from storygen.catalogue import Catalogue
from storygen.settings import load_settings
from tests.protocol.conftest import (
    FAKE,
    REAL,
    Client,
    Connect,
    Server,
    connecting,
    serve,
)

OPENING = "The inspector looked at the letter, and then at the man who had brought"
WATCHED = 6  # seconds
TOKENS = 1000  # of a passage whose speed is taken
STREAMED = "stream_token"


async def health(connect: Connect, server: Server) -> list[float]:
    """Seconds for each answer of /health while eight windows are written in."""
    clients = [await connect() for _ in range(8)]
    for client in clients:
        await client.set(max_new_tokens=1000)  # ten seconds at the least
        await client.send(OPENING)
    await asyncio.gather(*(_streaming(client) for client in clients))
    async with watched(server.url) as answers:
        await asyncio.sleep(WATCHED)
    for client in clients:
        await client.socket.emit("stop")
        await client.finished()
    return answers


async def stops(connect: Connect, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds from Stop to the passage's last words, and to its buttons."""
    client = await connect()
    await client.set(max_new_tokens=1000)
    last_words, buttons = [], []
    for _ in range(rounds):
        await client.send(OPENING)
        await _streaming(client)
        await asyncio.sleep(random.uniform(0, 0.1))  # not always just after words came
        pressed = time.monotonic()
        await client.socket.emit("stop")
        await client.finished()
        words = [at for at, event, _ in client.events if event == "stream_token"]
        last_words.append(max(0.0, words[-1] - pressed))
        buttons.append(time.monotonic() - pressed)
    return last_words, buttons


async def speeds(connect: Connect, rounds: int) -> tuple[list[float], list[float]]:
    """Characters a second of passages through the page, and of as many by the engine alone."""
    client = await connect()
    await client.set(max_new_tokens=TOKENS)
    await client.send(OPENING)  # opens the model
    await client.finished()
    page, alone = [], []
    for _ in range(rounds):
        client = await connect()  # a story of its own: the engine alone reads no more either
        await client.set(max_new_tokens=TOKENS)
        sent = time.monotonic()
        await client.send(OPENING)
        await _streaming(client)
        await client.finished()
        words = [(at, data["token"]) for at, event, data in client.events if event == STREAMED]
        page.append(sum(len(token) for _, token in words) / (words[-1][0] - sent))
        asked = ("--prompt", OPENING, "--max-new-tokens", str(TOKENS), "--json")
        writing = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "storygen", "write", "--model", first_model(), *asked),
            stdout=asyncio.subprocess.PIPE,
        )
        written = json.loads((await writing.communicate())[0])
        alone.append(len(written["text"]) * written["tokens_per_second"] / written["tokens"])
    return page, alone


def first_model() -> str:
    """The one that the page begins with."""
    settings = load_settings()
    return Catalogue(settings.weights_dir, settings.first_model).models()[0].name


async def _streaming(client: Client) -> None:
    """Wait until some of a passage is there."""
    await client.until(lambda: sum(event == "stream_token" for _, event, _ in client.events) > 2)


@asynccontextmanager
async def _page(command: list[str]) -> AsyncIterator[tuple[Connect, Server]]:
    with tempfile.TemporaryDirectory() as data:
        server = serve(Path(data), command)
        try:
            async with connecting(server, server.cookie) as connect:
                yield connect, server
        finally:
            server.stop()


def _row(what: str, seconds: list[float]) -> None:
    median = statistics.median(seconds)
    p99 = statistics.quantiles(seconds, n=100, method="inclusive")[98]
    times = "".join(f"{1000 * value:9.1f}" for value in (median, p99, max(seconds)))
    print(f"{what:44}{len(seconds):6}{times}", flush=True)


async def measure(engine: str, command: list[str], rounds: int) -> None:
    """Print the rows of one engine."""
    async with _page(command) as (connect, server):
        _row(f"{engine}: /health while eight write", await health(connect, server))
        last_words, buttons = await stops(connect, rounds)
        _row(f"{engine}: Stop to the last words", last_words)
        _row(f"{engine}: Stop to the buttons", buttons)
        if command is REAL:
            page, alone = await speeds(connect, rounds)
            ratio = statistics.median(a / b for a, b in zip(page, alone, strict=True))
            print(
                f"{engine}: {statistics.median(page):,.0f} characters/s through the page, "
                f"{statistics.median(alone):,.0f} by the engine alone, {ratio:.2f} of it"
            )


def main() -> None:
    """Print a row for each measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--shipped", action="store_true")
    args = parser.parse_args()
    print(f"{'':44}{'n':>6}{'median':>9}{'p99':>9}{'max':>9}")
    asyncio.run(measure("no cost", FAKE, args.rounds))
    if args.shipped:
        asyncio.run(measure("shipped", REAL, args.rounds))


if __name__ == "__main__":
    main()
