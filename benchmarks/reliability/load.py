"""What many clients at once get of the page, against the promises of load and control.

    python -m benchmarks.reliability.load [PART...] [--seconds 20] [--closes 100] [--out FILE.csv]

The real page in a process of its own, with 4 slots and a queue of 16, in proxy mode so that each
client may be a user of its own. The model is scripted (tests/protocol/scripted.py): a step takes
10 ms and repeats the nonce of the prompt, so that a crossed reply shows. Prints a row a measure.
"""

import argparse
import asyncio
import csv
import json
import os
import random
import re
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.watch import watched
from storygen.settings import ROOT
from tests.protocol.conftest import REAL, Client, Server, get, post, serve
from tests.protocol.deaf import Deaf
from tests.protocol.scripted import LOG, NONCE
from tests.protocol.weights import make_weights

SLOTS, QUEUE, CLIENTS = 4, 16, 64
HEADER = "Remote-User"
COMMAND = [sys.executable, "-m", "tests.protocol.scripted", "{port}"]
ENVIRONMENT = {
    "STORYGEN_FIRST_MODEL": "scripted",
    "STORYGEN_DTYPE": "fp16",  # nothing is compiled
    "STORYGEN_AUTH": "proxy",
    "STORYGEN_PROXY_HEADER": HEADER,
    "STORYGEN_TRUSTED_PROXIES": "127.0.0.1",
    "STORYGEN_SLOTS": str(SLOTS),
    "STORYGEN_QUEUE_SIZE": str(QUEUE),
}
LONG = 4000  # tokens: forty seconds and more

# One window that streams until it is stopped from outside.
STREAM = """
import asyncio, sys
from benchmarks.reliability.load import Page, LONG
async def main():
    client = await Page.at(int(sys.argv[1])).window(sys.argv[2])
    await client.set(max_new_tokens=LONG)
    await client.send("It begins, nonce-" + sys.argv[2][-8:])
    await client.until(lambda: "nonce-" in client.passage)
    print("streaming", flush=True)
    await asyncio.sleep(3600)
asyncio.run(main())
"""


class Page:
    """The page that is measured, and its clients."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.windows: list[Client] = []

    @classmethod
    def at(cls, port: int) -> "Page":
        """A page that somebody else has started."""
        return cls(Server(None, port, Path(), Path()))  # type: ignore[arg-type]  # never served

    async def window(self, user: str) -> Client:
        """A window of a user."""
        client = Client(self.server, "none=none", **{HEADER: user})
        await client.connect()
        self.windows.append(client)
        return client

    async def close(self) -> None:
        """Close all windows."""
        await asyncio.gather(*(w.socket.disconnect() for w in self.windows))
        self.windows.clear()
        await asyncio.sleep(0.5)

    def log(self, event: str) -> list[dict[str, Any]]:
        """What the server wrote down."""
        lines = (self.server.data / LOG).read_text().splitlines()
        found = [told for line in lines if (told := json.loads(line))["event"] == event]
        with sqlite3.connect(self.server.data / "stories.db") as database:
            names = dict(database.execute("SELECT id, name FROM users"))
        return [told | {"user": names.get(told["user"], told["user"])} for told in found]

    def written(self) -> dict[str, int]:
        """Characters that models wrote, by the name of the user."""
        query = """SELECT name, sum(length(text)) FROM passages JOIN users ON users.id = owner
                   WHERE role = 'model' GROUP BY name"""
        with sqlite3.connect(self.server.data / "stories.db") as database:
            return dict(database.execute(query))

    def passages(self, user: str) -> list[str]:
        """What models wrote for a user, as it is stored, in order."""
        query = """SELECT text FROM passages JOIN users ON users.id = owner
                   WHERE role = 'model' AND name = ? ORDER BY story_id, number"""
        with sqlite3.connect(self.server.data / "stories.db") as database:
            return [text for (text,) in database.execute(query, [user])]


@asynccontextmanager
async def page() -> AsyncIterator[Page]:
    """A page that nothing was asked of, but for one passage, after which all is warm."""
    with tempfile.TemporaryDirectory() as folder:
        weights = make_weights(Path(folder) / "weights", "scripted")
        more = ENVIRONMENT | {"STORYGEN_WEIGHTS_DIR": str(weights)}
        server = serve(Path(folder) / "data", COMMAND, **more)
        try:
            measured = Page(server)
            first = await measured.window("first")
            await first.set(max_new_tokens=60)
            await first.send("It begins, nonce-00000000")
            await first.finished()
            await measured.close()
            yield measured
        finally:
            server.stop()


class Rows:
    """The table."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str, str, str]] = []

    def add(self, promise: str, what: str, value: float, bar: str, holds: bool) -> None:
        """One measure, with the bar it is held against."""
        row = (promise, what, f"{value:.3g}", bar, "yes" if holds else "NO")
        self.rows.append(row)
        print(f"{row[0]:4}{row[1]:62}{row[2]:>9}  {row[3]:18}{row[4]}", flush=True)


def p(values: list[float], share: float) -> float:
    """A percentile; of few values the nearest."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def jain(shares: list[int]) -> float:
    """1 where all have the same, 1/n where one has all."""
    return sum(shares) ** 2 / (len(shares) * sum(n * n for n in shares))


def nonce() -> str:
    """One that nobody else has."""
    return f"nonce-{random.getrandbits(32):08x}"


def crossed(client: Client, own: str) -> bool:
    """Whether a window shows another's words."""
    return any(found != own for found in NONCE.findall(" ".join(client.outputs)))


def first_word(client: Client, since: float) -> float | None:
    """Seconds until a word was shown, if one was."""
    shown = (at for at, event, _ in client.events if at > since and event == "stream_start")
    return next((at - since for at in shown), None)


async def first_answer(client: Client, since: float) -> tuple[float, str]:
    """Seconds until a word, that it begins, a place in line or a refusal is shown, and which."""

    def kind() -> str:
        if first_word(client, since) is not None:
            return "word"
        shown = " ".join(client.outputs)
        if "in line" in shown:
            return "place"
        if "getting ready" in shown:
            return "begins"
        return "busy" if "is busy" in shown or "no more may wait" in shown else ""

    try:
        async with asyncio.timeout(60):
            await client.until(lambda: bool(kind()))
    except TimeoutError:
        print(f"     no answer: {client.outputs}")
    return time.monotonic() - since, kind()


async def burst(page: Page, rows: Rows) -> None:
    """L1, L4: 64 send at once."""
    clients = [await page.window(f"burst-{n}") for n in range(CLIENTS)]
    for client in clients:
        await client.set(max_new_tokens=100)
    nonces, before = [nonce() for _ in clients], page.server.memory
    entered = len(page.log("enter"))
    answers: list[tuple[float, str]] = []
    words: list[float] = []

    async def all_at_once() -> None:
        began = time.monotonic()
        await asyncio.gather(
            *(c.send(f"It begins, {n}") for c, n in zip(clients, nonces, strict=True))
        )
        answers.extend(await asyncio.gather(*(first_answer(c, began) for c in clients)))
        await asyncio.gather(*(c.finished() for c in clients))
        for client, (_, kind) in zip(clients, answers, strict=True):
            if kind in {"word", "begins"}:
                words.append(first_word(client, began) or 60)

    async with watched(page.server.url) as times:
        await all_at_once()
    kinds = Counter(kind for _, kind in answers)
    taken_in = max(told["running"] for told in page.log("enter")[entered:])
    encoded = {told["user"] for told in page.log("encode")}
    refused = [n for n, (_, kind) in zip(nonces, answers, strict=True) if kind == "busy"]
    read = sum(n in encoded for n in refused)
    wrong = sum(crossed(c, n) for c, n in zip(clients, nonces, strict=True))
    lost = sum(
        c.passage.count(n) == 0
        for c, n, (_, kind) in zip(clients, nonces, answers, strict=True)
        if kind != "busy"
    )
    slowest = 1000 * max(seconds for seconds, _ in answers)
    median = 1000 * statistics.median(seconds for seconds, _ in answers)
    print(f"     first answers: {dict(kinds)}, median {median:.0f} ms")
    print(f"     slowest first word of those that begin: {1000 * max(words):.0f} ms")
    rows.add("L1", "slowest first answer of 64, ms", slowest, "<= 500", slowest <= 500)
    rows.add("L1", "taken in at a time, of 64", taken_in, "<= 20", taken_in <= SLOTS + QUEUE)
    rows.add("L1", "refused whose text was tokenised", read, "0", read == 0)
    rows.add("L1", "replies crossed", wrong, "0", wrong == 0)
    rows.add("L1", "neither refused nor written", lost, "0", lost == 0)
    grown = page.server.memory - before
    rows.add("L1", "server grown, MB", grown, "<= 64", grown <= 64)
    _health(rows, "64 at once", times)
    await page.close()


def _health(rows: Rows, when: str, times: list[float]) -> None:
    p99, most = 1000 * p(times, 0.99), 1000 * max(times)
    rows.add("L4", f"/health p99 with {when}, ms", p99, "<= 100", p99 <= 100)
    rows.add("L4", f"/health slowest with {when}, ms", most, "<= 500", most <= 500)


async def times_alone(client: Client, tokens: int = 60) -> list[float]:
    """Seconds for a passage while nobody else asks for one, a few times."""
    times: list[float] = []
    await client.set(max_new_tokens=tokens)
    for _ in range(8):
        began = time.monotonic()
        await client.send(f"And then, {nonce()}")
        await client.finished()
        times.append(time.monotonic() - began)
    return times


async def fairness(page: Page, rows: Rows, seconds: float) -> None:
    """L2: eight users who always want more, one of them in ten tabs."""
    tabs = [await page.window("greedy") for _ in range(10)]
    tabs += [await page.window(f"modest-{n}") for n in range(7)]
    users = ["greedy"] * 10 + [f"modest-{n}" for n in range(7)]
    wrong, waits = 0, list[float]()
    alone = await times_alone(await page.window("alone"))
    until = time.monotonic() + seconds

    async def write_on(client: Client, user: str) -> None:
        nonlocal wrong
        own = nonce()
        await client.set(max_new_tokens=60)
        while time.monotonic() < until:
            asked = time.monotonic()
            await client.send(f"And then, {own}")
            _, kind = await first_answer(client, asked)
            await client.finished()
            if user != "greedy":
                waits.append(time.monotonic() - asked)
            wrong += crossed(client, own)
            if kind == "busy":
                await asyncio.sleep(0.2)

    async def at_the_end() -> dict[str, int]:
        # What still waits then is written to its end, by one user ten times as much.
        await asyncio.sleep(until - time.monotonic())
        return page.written()

    async with watched(page.server.url) as times:
        written, *_ = await asyncio.gather(at_the_end(), *map(write_on, tabs, users))
    shares = [written[user] for user in set(users)]
    index, ratio = jain(shares), written["greedy"] / statistics.median(shares)
    rows.add(
        "L2", "Jain index of tokens of 8 users, one in 10 tabs", index, ">= 0.95", index >= 0.95
    )
    rows.add("L2", "that user against the median", ratio, "<= 1.3", ratio <= 1.3)
    bar = QUEUE / SLOTS * p(alone, 0.95) + 1
    rows.add(
        "L2",
        "longest passage of another, waiting included, s",
        max(waits),
        f"<= {bar:.1f}",
        max(waits) <= bar,
    )
    rows.add("L2", "replies crossed", wrong, "0", wrong == 0)
    _health(rows, "17 that write", times)
    await page.close()


async def first_words(page: Page, rows: Rows) -> None:
    """L3: the first word of one alone, of four at a time, and of as many as may ask."""

    async def rounds(n: int) -> list[float]:
        clients = [await page.window(f"first-{n}-{i}") for i in range(n)]
        for client in clients:
            await client.set(max_new_tokens=20)
        times: list[float] = []
        for _ in range(max(3, 12 // n)):
            began = time.monotonic()
            await asyncio.gather(*(c.send(f"Then, {nonce()}") for c in clients))
            await asyncio.gather(*(first_answer(c, began) for c in clients))
            await asyncio.gather(*(c.finished() for c in clients))
            times += [first_word(c, began) or 60 for c in clients]
        await page.close()
        return times

    alone, together = 1000 * p(await rounds(1), 0.95), 1000 * p(await rounds(SLOTS), 0.95)
    waiting = 1000 * p(await rounds(SLOTS + QUEUE), 0.95)
    bar = 2 * alone + 100
    rows.add("L3", "first word p95, alone, ms", alone, "", True)
    rows.add("L3", "first word p95, 4 at a time, ms", together, f"<= {bar:.0f}", together <= bar)
    rows.add("L3", "first word p95, 20 at a time, ms", waiting, "", True)
    await page.close()


async def busy(page: Page, rows: Rows) -> None:
    """L4: while a story of 20 MB is taken in and given out, and while models are opened."""
    line = "\u0436" * 99 + "\n\n"
    draft = (line * 98_000).encode()

    def upload() -> None:
        url, headers = page.server.url, {HEADER: "uploads"}
        answer = post(f"{url}/api/import?name=a.txt", headers=headers, content=draft)
        story = answer.raise_for_status().json()["id"]
        get(f"{url}/api/stories/{story}/export/json", headers=headers).raise_for_status()

    async with watched(page.server.url) as times:
        await asyncio.to_thread(upload)
    _health(rows, f"{len(draft) / 1e6:.0f} MB in and out", times)
    with tempfile.TemporaryDirectory() as folder:
        real = serve(Path(folder), REAL)
        client = Client(real, real.cookie)
        try:
            await client.connect()
            names = [path.name for path in (ROOT / "weights").iterdir() if path.is_dir()]
            async with watched(real.url) as times:
                for name in names:
                    await client.set(model=name, max_new_tokens=2)
                    await client.send("It begins.")
                    await client.finished()
            await client.socket.disconnect()
        finally:
            await asyncio.to_thread(real.stop)
    _health(rows, f"{len(names)} models being opened", times)


async def closes(page: Page, rows: Rows, rounds: int) -> None:
    """C1: a window is closed at a random moment, every third one in line; another's passage goes
    on, and what the closed one had shown is kept."""
    others = [await page.window(f"other-{n}") for n in range(SLOTS)]
    own, freed, lost, in_line = nonce(), list[float](), 0, 0

    async def write_on(client: Client) -> None:
        if own not in client.passage or not client.is_busy:
            await client.set(max_new_tokens=LONG)
            await client.send(f"It goes on, {own}")
            await client.until(lambda: own in client.passage)

    for n in range(rounds):
        await write_on(others[0])
        if n % 3 == 0:  # all slots are taken
            await asyncio.gather(*map(write_on, others[1:]))
        elif n % 3 == 1:
            for client in others[1:]:
                await client.socket.emit("stop")
            await asyncio.gather(*(c.until(lambda c=c: not c.is_busy) for c in others[1:]))
        user = f"closed-{n}"
        client = await page.window(user)
        await client.set(max_new_tokens=LONG)
        await client.send(f"It begins, {nonce()}")
        await asyncio.sleep(random.uniform(0, 0.6))
        had = any(told["user"] == user for told in page.log("enter"))
        shown = client.passage.strip() if first_word(client, 0) is not None else ""
        in_line += had and not shown
        closed = time.monotonic()
        page.windows.remove(client)
        await client.socket.disconnect()
        left: list[float] = []
        for _ in range(100):
            left = [told["at"] for told in page.log("leave") if told["user"] == user]
            if left or not had:
                break
            await asyncio.sleep(0.02)
        if had:
            freed.append(1000 * (max(left[-1] - closed, 0) if left else 2.0))
        if shown:
            for _ in range(50):
                kept = " ".join(page.passages(user)).strip()
                if kept.startswith(shown):
                    break
                await asyncio.sleep(0.02)
            lost += not kept.startswith(shown)
    p99 = p(freed, 0.99)
    what = f"slot free after a window is closed, p99 of {len(freed)}, ms"
    rows.add("C1", what, p99, "<= 250", p99 <= 250)
    print(f"     {in_line} of them were in line, or their prompt was being read")
    rows.add("C1", "shown, and not in the story", lost, "0", lost == 0)
    wrong = re.sub(rf" ?\d{{6}} {own}", "", others[0].passage).strip(f"* 0123456789{own}")
    rows.add("C1", "characters of another's passage changed", len(wrong), "0", not wrong)
    await page.close()


async def cancelled(page: Page, rows: Rows) -> None:
    """C5: of 100 passages, 20 at a time, every tenth is stopped; the others are what they were when
    they were alone."""
    texts = [f"It begins, {nonce()}" for _ in range(100)]
    alone: list[str] = []
    for n, text in enumerate(texts):
        client = await page.window(f"alone-{n}")
        await client.set(max_new_tokens=30)
        await client.send(text)
        await client.finished()
        alone.append(client.passage)
        await client.socket.disconnect()
    free, differing = asyncio.Semaphore(SLOTS + QUEUE), 0

    async def again(n: int) -> None:
        nonlocal differing
        async with free:
            client = await page.window(f"again-{n}")
            await client.set(max_new_tokens=30)
            await client.send(texts[n])
            if n % 10 == 0:
                await asyncio.sleep(random.uniform(0, 1))
                await client.socket.emit("stop")
            await client.finished()
            differing += n % 10 != 0 and client.passage != alone[n]
            await client.socket.disconnect()

    await asyncio.gather(*map(again, range(len(texts))))
    what = "of 90 passages changed by 10 that were stopped"
    rows.add("C5", what, differing, "0", differing == 0)
    page.windows.clear()


async def stops(page: Page, rows: Rows) -> None:
    """C3: Stop, pressed twice, at any moment from before the prompt is read on."""
    client, late, refused, lost = await page.window("stops"), list[float](), 0, 0
    for n in range(30):
        await client.set(max_new_tokens=LONG)
        await client.send(f"It begins, {nonce()}. " + "And so on. " * 40)
        await asyncio.sleep(random.uniform(0, 0.1) if n % 2 else random.uniform(0, 1))
        await client.socket.emit("stop")
        await client.socket.emit("stop")
        await client.finished()
        ended = time.monotonic()
        shown = client.passage.strip()
        await asyncio.sleep(0.3)
        late += [at - ended for at, event, _ in client.events if event == "stream_token"]
        kept = " ".join(page.passages("stops"))
        lost += first_word(client, 0) is not None and shown not in kept
        await client.set(max_new_tokens=30)
        own = nonce()
        await client.send(f"It goes on, {own}")
        await client.finished()
        refused += own not in client.passage
    worst = 1000 * max([0.0, *late])
    rows.add("C3", "a word came after Stop had ended a passage, ms", worst, "<= 100", worst <= 100)
    rows.add("C3", "stopped passages that are not in the story", lost, "0", lost == 0)
    rows.add("C3", "messages after it that were not answered", refused, "0", refused == 0)
    await page.close()


async def deaf(page: Page, rows: Rows, seconds: float) -> None:
    """C6: windows that never read and ask for all they can, one after another as they are closed,
    beside another user; and, in turns with them, one that writes as much and reads it: one more
    writer costs the others something."""
    other = await page.window("beside")
    before, most, beside, reading = page.server.memory, 0.0, list[float](), list[float]()
    until = time.monotonic() + seconds

    async def look() -> None:
        nonlocal most
        while True:
            most = max(most, page.server.memory)
            await asyncio.sleep(0.1)

    async def ask() -> None:
        while True:
            async with Deaf(page.server, "none=none", **{HEADER: "deaf"}) as window:
                await window.emit("chat_settings_edit", {"max_new_tokens": LONG})
                await window.say(f"It begins, {nonce()}")
                with suppress(OSError):
                    for _ in range(1000):
                        await window.emit("chat_settings_change", {"max_new_tokens": LONG})
                        await asyncio.sleep(0.002)

    looking = asyncio.create_task(look())
    while time.monotonic() < until:
        reader = await page.window("reader")
        await reader.set(max_new_tokens=LONG)
        await reader.send(f"It begins, {nonce()}")
        reading += await times_alone(other)
        await reader.socket.disconnect()
        asking = asyncio.create_task(ask())
        beside += await times_alone(other)
        asking.cancel()
    looking.cancel()
    grown = most - before
    slower = 100 * (statistics.median(beside) / statistics.median(reading) - 1)
    rows.add("C6", "server grown by a window that never reads, MB", grown, "<= 8", grown <= 8)
    what = "others slower beside it than beside one that reads, %"
    rows.add("C6", what, slower, "<= 10", slower <= 10)
    await page.close()


async def stopped(page: Page, rows: Rows) -> None:
    """C2: a client that is stopped and says nothing."""
    worst = 0.0
    for n in range(3):
        user = f"stopped-{n:08x}"
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            STREAM,
            str(page.server.port),
            user,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        await process.stdout.readline()
        os.kill(process.pid, signal.SIGSTOP)
        began, before = time.monotonic(), page.server.memory
        while not any(told["user"] == user for told in page.log("leave")):  # noqa: ASYNC110 - a file tells nobody
            await asyncio.sleep(0.1)
        worst = max(worst, time.monotonic() - began)
        grown = page.server.memory - before
        process.kill()
        await process.wait()
    rows.add("C2", "slot free after a client is stopped, s", worst, "<= 12", worst <= 12)
    rows.add("C2", "server grown meanwhile, MB", grown, "<= 8", grown <= 8)


async def flood(page: Page, rows: Rows) -> None:
    """C4: twenty messages at once on one socket."""
    client = await page.window("flood")
    await client.set(max_new_tokens=50)
    for n in range(20):
        await client.send(f"And {n}, {nonce()}")
    await client.finished()
    await asyncio.sleep(1)
    told = [t for event in ("enter", "leave") for t in page.log(event) if t["user"] == "flood"]
    for what, name in (("being written", "at_work"), ("waiting", "in_line")):
        most = max(t[name] for t in told)
        rows.add("C4", f"passages {what} of 20 messages on one socket", most, "<= 1", most <= 1)
    await page.close()


async def measure(args: argparse.Namespace) -> Rows:
    """All rows."""
    rows = Rows()
    parts: dict[str, Callable[[Page], Awaitable[None]]] = {
        "burst": lambda page: burst(page, rows),
        "first": lambda page: first_words(page, rows),
        "fairness": lambda page: fairness(page, rows, args.seconds),
        "busy": lambda page: busy(page, rows),
        "closes": lambda page: closes(page, rows, args.closes),
        "cancelled": lambda page: cancelled(page, rows),
        "stops": lambda page: stops(page, rows),
        "stopped": lambda page: stopped(page, rows),
        "deaf": lambda page: deaf(page, rows, args.seconds),
        "flood": lambda page: flood(page, rows),
    }
    if unknown := set(args.parts) - set(parts):
        sys.exit(f"No part is named {sorted(unknown)[0]!r}: there are {', '.join(parts)}.")
    async with page() as measured:
        for name in args.parts or parts:
            await parts[name](measured)
    return rows


def main() -> None:
    """Print the table, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help="burst, first, fairness ...: all by default")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--closes", type=int, default=100)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = asyncio.run(measure(args)).rows
    if args.out:
        with args.out.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("promise", "what", "measured", "bar", "holds"), *rows])
        lines = [f"| {' | '.join(row)} |" for row in rows]
        table = ["| promise | what | measured | bar | holds |", "|---|---|---|---|---|", *lines]
        args.out.with_suffix(".md").write_text("\n".join(table) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
