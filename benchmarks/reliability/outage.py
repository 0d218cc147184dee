"""The database away for half a minute while many write: what they are told, and what is stored.

    python -m benchmarks.reliability.outage [--seconds 30] [--writers 16] [--postgresql]

Every writer sends a message as soon as the one before is answered or refused. After ten seconds
another program holds SQLite's file, or PostgreSQL is killed, for the seconds given; then they write
on for twenty. At the end whatever was shown must be in the story, word for word. Prints what was
counted, and ends with 1 where words are missing, somebody heard nothing of it or could not go on,
the page did not answer, or its memory grew.
"""

import argparse
import asyncio
import html
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.reliability.kill import MARKS
from benchmarks.reliability.mixed import BY_PROXY, HEADER
from benchmarks.watch import watched
from tests.protocol.conftest import FAKE, Client, Server, errors_in, get, serve
from tests.story import postgres

BEFORE, AFTER = 10.0, 20.0  # seconds of writing
PAUSE = 0.5  # seconds before somebody who was refused tries again
MOST_MEMORY = 50  # MB more
MOST_SILENCE = 0.5  # seconds without an answer to /health


@dataclass
class Writer:
    """One of them, and what became of each message."""

    client: Client
    answered: list[tuple[float, str]] = field(default_factory=list)  # when, and the message's id
    refused: list[tuple[float, str]] = field(default_factory=list)  # when, and in which words

    async def work(self, until: float) -> None:
        """Send one message after another."""
        number = 0
        while time.monotonic() < until:
            number += 1
            sent = await self.client.send(f"Line {number}, nonce-{id(self):x}x{number}.")
            await self.client.finished()
            told = [
                data["output"]
                for _, event, data in self.client.events
                if event == "new_message" and data.get("isError")
            ]
            if told:
                self.refused.append((time.monotonic(), told[-1]))
                await asyncio.sleep(PAUSE)
            else:
                self.answered.append((time.monotonic(), sent))

    def missing(self, stored: dict[str, str]) -> list[str]:
        """What this window showed and the store does not have, though nothing was said."""
        wrong = [
            f"message {message_id} was answered and is not stored"
            for _, message_id in self.answered
            if message_id not in stored
        ]
        for message_id, message in self.client.messages.items():
            told = html.unescape(str(message["output"]).translate(MARKS))
            is_passage = message["type"] == "assistant_message" and "nonce-" in told
            if is_passage and stored.get(message_id) != told:
                wrong.append(f"{told!r:.60} was shown, {stored.get(message_id)!r:.60} is stored")
        return wrong


@asynccontextmanager
async def sqlite_held(server: Server) -> AsyncIterator[None]:
    """Nobody else writes SQLite's file."""
    with closing(sqlite3.connect(server.data / "stories.db", timeout=60)) as other:
        other.isolation_level = None
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@asynccontextmanager
async def postgresql_gone(database: postgres.Server) -> AsyncIterator[None]:
    """The server is killed, and started again."""
    await asyncio.to_thread(database.stop)
    yield
    await asyncio.to_thread(database.start)


async def tried(server: Server, database: postgres.Server | None, args: argparse.Namespace) -> int:
    """Write before, during and after; how many things were wrong."""
    writers = []
    for number in range(args.writers):
        client = Client(server, "none=none", **{HEADER: f"writer {number}"})
        await client.connect()
        await client.set(max_new_tokens=30)
        writers.append(Writer(client))
    async with watched(server.url) as times:
        until = time.monotonic() + BEFORE + args.seconds + AFTER
        working = [asyncio.create_task(writer.work(until)) for writer in writers]
        await asyncio.sleep(BEFORE)
        memory, away = server.memory, time.monotonic()
        async with postgresql_gone(database) if database else sqlite_held(server):
            await asyncio.sleep(args.seconds)
            grown = server.memory - memory
        back = time.monotonic()
        await asyncio.gather(*working)
    wrong: list[str] = []
    for writer in writers:
        path = f"{server.url}/api/stories/{writer.client.story_id}/manuscript"
        told = get(path, headers=writer.client.headers).json()
        wrong += writer.missing({p["id"]: p["text"] for p in told["passages"]})
        await writer.client.socket.disconnect()
    refused = [(when, words) for writer in writers for when, words in writer.refused]
    during = [sum(away < when < back for when, _ in writer.refused) for writer in writers]
    first = [
        min((when - back for when, _ in writer.answered if when > back), default=AFTER)
        for writer in writers
    ]
    answered = sum(len(writer.answered) for writer in writers)
    print(f"{answered} messages answered, {len(refused)} refused, {sum(during)} of these meanwhile")
    print(f"  every writer heard of it {min(during)} to {max(during)} times, in such words:")
    for words in sorted({words for _, words in refused}):
        print(f"    {words}")
    print(f"  back after {min(first):.1f} to {max(first):.1f} s; {grown:.0f} MB more meanwhile")
    print(f"  /health slowest {1000 * max(times):.0f} ms")
    wrong += ["somebody heard nothing of it"] * (min(during) == 0)
    wrong += ["somebody could not go on"] * (max(first) >= AFTER)
    wrong += ["memory grew"] * (grown > MOST_MEMORY)
    wrong += ["the page did not answer"] * (max(times) > MOST_SILENCE)
    print(f"{len(wrong)} findings", *wrong[:20], sep="\n")
    return len(wrong)


def main() -> int:
    """Print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--writers", type=int, default=16)
    parser.add_argument("--postgresql", action="store_true")
    args = parser.parse_args()
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "data"
        more, database = dict(BY_PROXY), None
        if args.postgresql:
            database = stack.enter_context(postgres.running())
            more["STORYGEN_DATABASE_URL"] = database.new_database()
        server = serve(data, FAKE, **more)
        stack.callback(server.stop)
        wrong = asyncio.run(tried(server, database, args))
        unforeseen = errors_in(server.log.read_text(errors="replace"))
    print(*unforeseen, sep="\n")
    return int(wrong > 0 or bool(unforeseen))


if __name__ == "__main__":
    sys.exit(main())
