"""An evening of many writers at once: what they wait for, and whether the server stays as it was.

    python -m benchmarks.reliability.mixed [--minutes 60] [--clients 16] [--real]

Each is a user of their own, whom a proxy names, and writes, stops, retries, undoes, edits, changes
settings, reads the manuscript and the tree, searches, exports, imports a draft, closes the window
and opens the story again. Prints a line a minute: turns and requests, the 50th and 99th percentile
of the wait for the first words and for an answer over HTTP, the server's memory. Ends with 1 after
any error, or where the last quarter needs more than 50 MB above the first. --real takes app.py and
the shipped models, otherwise the engine answers at once and the page itself is what is measured.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from benchmarks.reliability.sessions import COMMAND, GROWTH, resident
from tests.protocol.conftest import PATIENCE, REAL, Client, Server, errors_in, serve

HEADER = "Remote-User"
BY_PROXY = {
    "STORYGEN_AUTH": "proxy",
    "STORYGEN_PROXY_HEADER": HEADER,
    "STORYGEN_TRUSTED_PROXIES": "127.0.0.1",
}
WORDS = "The lamp went out and nobody in the house said a word about it until the morning. "
TURNS = ["write", "write", "continue", "retry", "undo", "stop", "set"]
READS = ["manuscript", "tree", "find?text=lamp", "context", "export/md", "export/json"]


@dataclass
class Seen:
    """What a minute was like."""

    first_words: list[float] = field(default_factory=list)  # seconds
    answers: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def line(self, minute: int, memory: float) -> str:
        """As it is printed."""
        return (
            f"minute {minute}: {len(self.first_words)} turns, first words "
            f"{_percentiles(self.first_words)}; {len(self.answers)} requests, "
            f"{_percentiles(self.answers)}; {memory:.0f} MB; {len(self.errors)} errors"
        )


class Writer:
    """One of them, at work until the time is over."""

    def __init__(self, server: Server, number: int, seen: list[Seen]) -> None:
        self.server, self.user, self.draw = (
            server,
            {HEADER: f"writer {number}"},
            random.Random(number),
        )
        self.seen, self.client = seen, self._window()
        unused = httpx.Limits(keepalive_expiry=2)  # before the server closes it, after 5 seconds
        self.http = httpx.AsyncClient(
            base_url=server.url, headers=self.user, timeout=PATIENCE, limits=unused
        )

    async def work(self, until: float) -> None:
        """Do one thing after another."""
        await self._open()
        while time.monotonic() < until:
            try:
                await self._one_thing()
            except Exception as error:
                self.seen[-1].errors.append(repr(error)[:300])
                await self._open_again()
        await self.client.socket.disconnect()
        await self.http.aclose()

    async def _one_thing(self) -> None:
        kind = self.draw.random()
        if kind < 0.55 or not self.client.story_id:
            await self._turn(self.draw.choice(TURNS) if self.client.story_id else "write")
        elif kind < 0.92:
            await self._read(f"/api/stories/{self.client.story_id}/{self.draw.choice(READS)}")
        elif kind < 0.97:
            await self._bring_in()
        else:
            await self._open_again(self.client.story_id if self.draw.random() < 0.7 else "")
        await asyncio.sleep(self.draw.random() * 0.3)  # somebody reads

    async def _turn(self, kind: str) -> None:
        client = self.client
        if kind == "set":
            return await client.set(temperature=self.draw.choice([0.5, 0.8, 1.0]))
        begun = time.monotonic()
        if kind in ("continue", "retry", "undo") and kind in client.actions:
            (await client.press(kind)).raise_for_status()
        else:
            await client.send(WORDS * self.draw.randint(1, 5))
        if kind == "undo":
            return await client.finished()
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await client.until(lambda: self._event("stream_start") or self._event("task_end"))
        if self._event("stream_start"):
            self.seen[-1].first_words.append(time.monotonic() - begun)
        if kind == "stop":
            await client.socket.emit("stop")
        await client.finished()
        wrong = [m["output"] for m in client.messages.values() if m.get("isError")]
        self.seen[-1].errors += wrong

    def _event(self, name: str) -> bool:
        return any(event == name for _, event, _ in self.client.events)

    async def _read(self, path: str) -> None:
        begun = time.monotonic()
        answer = await self.http.get(path)
        assert answer.is_success, f"{path}: {answer.text}"
        self.seen[-1].answers.append(time.monotonic() - begun)

    async def _bring_in(self) -> None:
        begun, text = time.monotonic(), WORDS * self.draw.randint(10, 500)
        answer = await self.http.post("/api/import?name=draft.txt", content=text.encode())
        answer.raise_for_status()
        self.seen[-1].answers.append(time.monotonic() - begun)
        deleted = await self.http.post(
            f"/api/stories/{answer.json()['id']}", json={"deleted": True}
        )
        deleted.raise_for_status()

    async def _open_again(self, story: str = "") -> None:
        await self.client.socket.disconnect()
        self.client = self._window(story)
        await self._open()

    def _window(self, story: str = "") -> Client:
        return Client(self.server, "none=none", story, **self.user)

    async def _open(self) -> None:
        await self.client.connect()
        await self.client.set(max_new_tokens=40)


def _percentiles(seconds: list[float]) -> str:
    if not seconds:
        return "none"
    ordered = sorted(seconds)
    half, most = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
    return f"{half * 1000:.0f}/{most * 1000:.0f} ms"


async def evening(server: Server, clients: int, minutes: int) -> tuple[list[Seen], list[float]]:
    """Have them all work; what each minute was like, and the memory at its end."""
    seen, memory = [Seen()], list[float]()
    until = time.monotonic() + 60 * minutes
    writers = [Writer(server, number, seen) for number in range(clients)]
    tasks = [asyncio.create_task(writer.work(until)) for writer in writers]
    for minute in range(1, minutes + 1):
        await asyncio.sleep(60)
        memory.append(resident(server))
        print(seen[-1].line(minute, memory[-1]), *seen[-1].errors, sep="\n  ", flush=True)
        if minute < minutes:
            seen.append(Seen())
    await asyncio.gather(*tasks)
    return seen, memory


def main() -> int:
    """Measure, and say what was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--real", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = serve(Path(folder) / "data", REAL if args.real else COMMAND, **BY_PROXY)
        try:
            seen, memory = asyncio.run(evening(server, args.clients, args.minutes))
        finally:
            code = server.stop()
        log = server.log.read_text(errors="replace")
    errors = [error for minute in seen for error in minute.errors]
    if found := errors_in(log):
        errors += found
        print(*found, sep="\n")
    words = _percentiles([wait for minute in seen for wait in minute.first_words])
    answers = _percentiles([wait for minute in seen for wait in minute.answers])
    print(f"{args.clients} clients, {args.minutes} min: first words {words}, answers {answers}")
    print(f"memory {memory[0]:.0f} to {memory[-1]:.0f} MB; exit code {code}; {len(errors)} errors")
    quarter = max(1, len(memory) // 4)
    growth = max(memory[-quarter:]) - max(memory[:quarter])
    return int(bool(errors) or code != 0 or growth > GROWTH)


if __name__ == "__main__":
    sys.exit(main())
