"""kill -9 at random moments while writers write, a model is trained, and things are saved: what of
it is there afterwards.

    python -m benchmarks.reliability.kill [chatting] [training] [saving] [--rounds 300] [--seed 0]

The rounds are shared out among what is named, or all three; kill_saves.py has the last two. A real
page with an engine that writes a word every 10 ms; three windows that send messages and go on.
After each kill the database is read as it lies. Ends with 1 when a message that was answered is
missing, more than a second of a reply is lost, something is there twice or out of order, or the
database is damaged; or where the other two find anything. A parent imports everything once and
forks, so that a round takes seconds.
"""

import argparse
import asyncio
import html
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import httpx

from tests.protocol.conftest import ROOT, Client, Server, connecting, environment, free_port, get

WINDOWS = 3
LOST_AT_MOST = 1.0  # seconds of a reply
LOOK_EVERY = 0.02
MARKS = str.maketrans("", "", "`*")  # by which the page keeps Markdown from reading prose
PARENT = [sys.executable, "-m", "benchmarks.reliability.kill", "--parent"]


@dataclass
class Record:
    """What one writer was shown, over all rounds."""

    story_id: str = ""
    sent: list[tuple[str, str]] = field(default_factory=list)  # id and text, in order
    answered: set[str] = field(default_factory=set)  # ids of messages after which a reply came
    shown: list[tuple[float, str, str]] = field(default_factory=list)  # time, passage, its text


@contextmanager
def parent(data: Path) -> Iterator[subprocess.Popen[str]]:
    """The process that forks pages, one for each port on its standard input."""
    with (
        (data / "server.log").open("ab") as log,
        subprocess.Popen(
            PARENT,
            cwd=ROOT,
            env=environment(data),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        yield process
        assert process.stdin is not None
        process.stdin.close()


def fork_pages() -> None:
    """Be that process."""
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a page prints goes to its log
    import chainlit.cli  # noqa: F401 - so that each child has it

    from storygen.chat import api, events, files, history, page  # noqa: F401 - as above
    from tests.protocol import serve

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            sys.argv = ["serve", line.strip()]
            serve.main()
            os._exit(0)
        print(child, file=said, flush=True)
        os.waitpid(child, 0)
        print("gone", file=said, flush=True)


async def started(parent: subprocess.Popen[str], data: Path) -> tuple[Server, int]:
    """A page that answers, and its process id."""
    assert parent.stdin is not None
    assert parent.stdout is not None
    port = free_port()
    print(port, file=parent.stdin, flush=True)
    pid = int(await asyncio.to_thread(parent.stdout.readline))
    server = Server(parent, port, data / "server.log", data)  # type: ignore[arg-type]  # a process all the same
    for _ in range(3000):
        try:
            await asyncio.to_thread(get, f"{server.url}/health")
            return server, pid
        except httpx.TransportError:
            await asyncio.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    raise AssertionError(f"The page did not start: see {server.log}")


async def write(client: Client, record: Record) -> None:
    """Send messages, each before the reply to the one before has ended or after, without end."""
    await client.set(max_new_tokens=random.randrange(20, 800))
    while True:
        text = f"It begins, nonce-{uuid4().hex[:8]}."
        record.sent.append((await client.send(text), text))
        await asyncio.sleep(random.random() * 4)


async def look(client: Client, record: Record) -> None:
    """Note what the window shows, again and again."""
    while True:
        record.story_id = client.story_id or record.story_id
        messages = list(client.messages.items())
        place = {message_id: n for n, (message_id, _) in enumerate(messages)}
        replies = [(n, i, m) for n, (i, m) in enumerate(messages) if m["type"] != "user_message"]
        for n, passage_id, message in replies[-2:]:
            told = html.unescape(str(message["output"]).translate(MARKS))
            if "nonce-" in told:  # not a notice
                record.shown.append((time.monotonic(), passage_id, told))
                record.answered |= {i for i, _ in record.sent if place.get(i, n) < n}
        await asyncio.sleep(LOOK_EVERY)


async def one_round(server: Server, pid: int, records: list[Record]) -> None:
    """Write in every window until the kill."""
    async with connecting(server, server.cookie) as connect:
        clients = [await connect(record.story_id) for record in records]
        tasks = []
        for client, record in zip(clients, records, strict=True):
            record.shown.clear()
            tasks += [asyncio.create_task(work(client, record)) for work in (write, look)]
        await asyncio.sleep(0.3 + random.random() * 4)
        os.kill(pid, signal.SIGKILL)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def findings(data: Path, record: Record) -> tuple[list[str], float]:
    """What is wrong with one story as it lies on the disk, and how many seconds of a reply it
    lacks: the time in which the words that are missing came, however long they had been there."""
    with closing(sqlite3.connect(data / "stories.db")) as database:
        rows = database.execute(
            "SELECT id, role, text, number FROM passages WHERE story_id = ? ORDER BY number",
            [record.story_id],
        ).fetchall()
    stored = {row[0]: row for row in rows}
    wrong = []
    for message_id, text in record.sent:
        found = stored.get(message_id)
        if found is None and message_id in record.answered:
            wrong.append(f"the answered message {text!r} is missing")
        if found is not None and found[1:3] != ("writer", text):
            wrong.append(f"the message {text!r} is stored as {found[2]!r}")
    sent = [message_id for message_id, _ in record.sent if message_id in stored]
    if sent != [row[0] for row in rows if row[0] in set(sent)]:
        wrong.append("messages are out of order")
    if [row[3] for row in rows] != list(range(1, len(rows) + 1)):
        wrong.append("numbers of passages are missing or there twice")
    texts = [row[2] for row in rows if row[1] == "writer"]
    if len(set(texts)) != len(texts):
        wrong.append("a message is stored twice")
    lost, missing_since, before = 0.0, dict[str, float](), dict[str, str]()
    for moment, passage_id, text in record.shown:
        kept = stored[passage_id][2] if passage_id in stored else ""
        if text != before.get(passage_id) and kept.split()[: len(text.split())] != text.split():
            since = missing_since.setdefault(passage_id, moment)
            lost = max(lost, moment - since + LOOK_EVERY)
        before[passage_id] = text
    if lost > LOST_AT_MOST:
        wrong.append(f"{lost:.2f} s of a reply are lost")
    return wrong, lost


async def run(rounds: int, data: Path) -> tuple[list[str], list[float], int]:
    """Kill a page so many times; what was wrong, seconds lost in each round, messages answered."""
    records = [Record() for _ in range(WINDOWS)]
    wrong: list[str] = []
    lost: list[float] = []
    with parent(data) as process:
        for n in range(rounds):
            server, pid = await started(process, data)
            await one_round(server, pid, records)
            assert process.stdout is not None
            assert await asyncio.to_thread(process.stdout.readline) == "gone\n"
            with closing(sqlite3.connect(data / "stories.db")) as database:
                whole = database.execute("PRAGMA integrity_check").fetchone()[0]
            if whole != "ok":
                wrong.append(f"round {n}: the database is damaged ({whole})")
            for record in records:
                found, seconds = findings(data, record)
                wrong += [f"round {n}: {finding}" for finding in found]
                lost.append(seconds)
    return wrong, lost, sum(len(record.answered) for record in records)


def chatting(rounds: int, folder: Path) -> list[str]:
    """Kill a page so many times; what was wrong."""
    wrong, lost, answered = asyncio.run(run(rounds, folder))
    print(f"chatting: {rounds} kills, {answered} answered messages")
    print(f"reply lost, in seconds: median {statistics.median(lost):.2f}, most {max(lost):.2f}")
    return wrong


def main() -> int:
    """Print what was found."""
    from benchmarks.reliability.kill_saves import kill_saving, kill_training

    kinds = {"chatting": chatting, "training": kill_training, "saving": kill_saving}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", choices=[*kinds, []], metavar="KIND")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    random.seed(args.seed)
    wrong: list[str] = []
    chosen = args.kinds or list(kinds)
    for kind in chosen:
        with tempfile.TemporaryDirectory() as folder:
            wrong += kinds[kind](args.rounds // len(chosen), Path(folder))
    print(f"{len(wrong)} findings")
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--parent"]:
        fork_pages()
    else:
        sys.exit(main())
