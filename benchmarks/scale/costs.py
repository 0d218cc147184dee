"""What a passage and a writer cost on this machine: processor time, memory, rows, bytes.

    python -m benchmarks.scale.costs [--parts engine page apart store] [--rounds 5]
        [--out benchmarks/scale/costs.csv]

Processor time is that of the processes themselves, so that other programs disturb it little; the
rows in wall-clock seconds need a quiet machine. Parts that are not measured keep the rows that the
file has. Needs what the tests need (requirements-dev.txt); without PostgreSQL its rows stay away.
"""

import argparse
import asyncio
import csv
import os
import re
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, aclosing
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx

from benchmarks.machine import Watch
from benchmarks.models import SIZES, subject
from benchmarks.results import _processor as processor
from benchmarks.scale.processes import cpu_seconds, resident, wire
from benchmarks.scale.serve import WORDS
from storygen.accounts import passwords
from storygen.catalogue import Catalogue
from storygen.engine.local import LocalEngine
from storygen.params import SamplingParams
from storygen.settings import ROOT, load_settings
from storygen.story.store import StoryStore
from tests.protocol.conftest import REAL, Client, Server, connecting, serve
from tests.story import postgres

FILE = ROOT / "benchmarks/scale/costs.csv"
PAGE, API = (
    [sys.executable, "-m", "benchmarks.scale.serve", what, "{port}"] for what in ("page", "api")
)
CPU = ("CPU s", "CPU s a second")
OWNER = "writer"
EMPTY: dict[str, Any] = {"title": "A story", "settings": {}, "passages": (), "head_id": None}
BATCHES = (1, 2, 4, 8)
PROMPT, NEW = 180, 120  # tokens, about
WINDOWS, LISTENED = 40, 30.0  # windows that do nothing, for so many seconds: a ping each
TABS, SHORT, LONG = 4, 20, 320  # windows that write, and tokens of their passages
STORED = 640  # characters of a passage: 160 tokens


class Cost(NamedTuple):
    """One figure: what is measured, of what, how many at once."""

    part: str
    measure: str
    of: str
    at: int
    value: float
    unit: str


class Costs:
    """Figures by measure, as they lie in the file."""

    def __init__(self, rows: list[Cost], machine: dict[str, str]) -> None:
        self.rows, self.machine = rows, machine

    @classmethod
    def read(cls, path: Path) -> "Costs":
        """The figures of a file."""
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        machine = {x["measure"]: x["of"] for x in lines if x["part"] == "machine"}
        rows = [
            Cost(x["part"], x["measure"], x["of"], int(x["at"]), float(x["value"]), x["unit"])
            for x in lines
            if x["part"] != "machine"
        ]
        return cls(rows, machine)

    def write(self, path: Path) -> None:
        """Keep them."""
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(Cost._fields)
            writer.writerows(("machine", k, v, 0, 0, "") for k, v in self.machine.items())
            writer.writerows(row._replace(value=float(f"{row.value:.4g}")) for row in self.rows)

    def __call__(self, measure: str, of: str = "", at: int = 1) -> float:
        """One figure."""
        for row in self.rows:
            if (row.measure, row.of, row.at) == (measure, of, at):
                return row.value
        raise KeyError((measure, of, at))

    def names(self, measure: str) -> list[str]:
        """Of what there is a figure."""
        return list(dict.fromkeys(row.of for row in self.rows if row.measure == measure))


def prose(words: int, number: int) -> str:
    """Words that no other number begins with."""
    drawn = [WORDS.split()[(n * (number + 3) + n * n) % 17] for n in range(words)]
    return f"{number} " + " ".join(drawn)


# The engine: one thread, so that none of its time is spent on waiting for another.


async def engine(models: list[str], forms: list[str], rounds: int, folder: Path) -> list[Cost]:
    """Processor seconds of a token that is read and of one that is written, by model, form and how
    many write at once."""
    rows = []
    for name in models:
        model = subject(name, folder / "models", ROOT / "weights")
        for form in forms:
            rows += await _engine(name, model.directory, form, rounds)
            print(*rows[-1 - len(BATCHES) :], sep="\n", flush=True)
    return rows


async def _engine(name: str, directory: Path, form: str, rounds: int) -> list[Cost]:
    local = LocalEngine(
        Catalogue(directory.parent),
        dtype=form,
        threads=1,
        slots=max(BATCHES),
        native=load_settings().native_dir,
    )
    await local.start()
    model, number, of = directory.name, 0, f"{name} {form}"

    def story() -> str:
        nonlocal number
        number += 1
        return prose(words, number)

    async def passage(prompt: str, tokens: int) -> int:
        params = SamplingParams(max_new_tokens=tokens, seed=number, loop_guard=False, top_k=50)
        stream = local.stream(model, prompt, params)
        async with aclosing(stream) as segments:
            return sum([segment.token_count async for segment in segments])

    words = int(PROMPT / await local.count_tokens(model, prose(100, 1)) * 100)
    read = await local.count_tokens(model, prose(words, 1))
    await passage(story(), NEW)  # opens the model
    found: dict[int, list[float]] = {0: []} | {n: [] for n in BATCHES}
    for _ in range(rounds):
        before = time.process_time()
        for _ in range(4):
            await passage(story(), 1)
        found[0].append((time.process_time() - before) / (4 * read))
        for n in BATCHES:
            prompts = [story() for _ in range(n)]
            for prompt in prompts:  # so that only writing is left to be timed
                await passage(prompt, 1)
            before = time.process_time()
            written = sum(await asyncio.gather(*(passage(prompt, NEW) for prompt in prompts)))
            found[n].append((time.process_time() - before) / written)
    await local.close()
    costs = {n: statistics.median(times) for n, times in found.items()}
    rows = [Cost("engine", "read a token", of, 1, costs[0], "CPU s")]
    return rows + [Cost("engine", "write a token", of, n, costs[n], "CPU s") for n in BATCHES]


# The page, with an engine that costs next to nothing.


async def page(rounds: int, folder: Path) -> list[Cost]:
    """What windows cost that do nothing, and those that are written in."""
    server = serve(folder / "page", PAGE)
    try:
        await _warm(server)
        return [
            *await _idle(server),
            *await _writing(server, rounds),
            *await _wire(server),
            *await _sign_in(),
        ]
    finally:
        server.stop()


async def apart(rounds: int, folder: Path) -> list[Cost]:
    """What passages cost where the engine is a server elsewhere, there and here."""
    api = serve(folder / "api", API)
    try:
        server = serve(folder / "page", REAL, STORYGEN_ENGINE_URL=api.url)
        try:
            await _warm(server)
            there = api.process.pid
            rows = [row for row in await _writing(server, rounds, there) if row.unit in CPU]
            return [row._replace(part="apart", of=row.of or "page") for row in rows]
        finally:
            server.stop()
    finally:
        api.stop()


async def _warm(server: Server) -> None:
    async with connecting(server, server.cookie) as connect:
        await written(await connect(), SHORT)


async def written(client: Client, tokens: int) -> tuple[float, float]:
    """Let a passage be written; seconds to its first words, and from there to its end."""
    if not client.outputs or client.outputs == [""]:
        await client.set(max_new_tokens=tokens)
        asked = time.monotonic()
        await client.send("She looked at the letter")
    else:
        await client.set(max_new_tokens=tokens)
        client.events.clear()
        asked = time.monotonic()
        await client.socket.emit("window_message", {"storygen": {"do": "continue"}})
    await client.finished()
    streams = [at for at, event, _ in client.events if event in ("stream_start", "stream_token")]
    return streams[0] - asked, time.monotonic() - streams[0]


async def _idle(server: Server) -> list[Cost]:
    process = server.process.pid
    before, used = resident(process), cpu_seconds(process)
    await asyncio.sleep(LISTENED / 3)
    nothing = (cpu_seconds(process) - used) / (LISTENED / 3)
    async with connecting(server, server.cookie) as connect:
        used = cpu_seconds(process)
        for _ in range(WINDOWS):
            await connect()
        opening = (cpu_seconds(process) - used) / WINDOWS
        used = cpu_seconds(process)
        await asyncio.sleep(LISTENED)
        idle = (cpu_seconds(process) - used) / LISTENED
        grown = (resident(process) - before) / WINDOWS
    return [
        Cost("page", "page alone", "", 1, before, "MB"),
        Cost("page", "open a window", "", 1, opening, "CPU s"),
        Cost("page", "idle window", "", 1, max(0.0, idle - nothing) / WINDOWS, "CPU s a second"),
        Cost("page", "window", "", 1, max(0.0, grown), "MB"),
    ]


async def _writing(server: Server, rounds: int, api: int | None = None) -> list[Cost]:
    """The cost of a passage as so much for each, and so much for each second of its words; of the
    API's process too where there is one."""
    points, firsts, grown = [], list[float](), 0.0
    there = list[tuple[float, float]]()
    process = server.process.pid
    async with connecting(server, server.cookie) as connect:
        clients = [await connect() for _ in range(TABS)]
        for client in clients:
            await written(client, SHORT)
        before = resident(process)
        for _ in range(rounds):
            for tokens in (SHORT, LONG):
                used, writes = cpu_seconds(process), await _writes(server)
                used_there = cpu_seconds(api) if api else 0.0
                times = await asyncio.gather(*(written(c, tokens) for c in clients))
                cpu = (cpu_seconds(process) - used) / TABS
                writes = (await _writes(server) - writes) / TABS
                points.append((statistics.mean(s for _, s in times), cpu, writes))
                firsts += [first for first, _ in times]
                if api:
                    there.append((points[-1][0], (cpu_seconds(api) - used_there) / TABS))
        grown = (resident(process) - before) / TABS
    cpu_each, cpu_second = line([(s, cpu) for s, cpu, _ in points])
    writes_each, writes_second = line([(s, n) for s, _, n in points])
    api_each, api_second = line(there) if there else (0.0, 0.0)
    served = [
        Cost("page", "passage", "API", 1, api_each, CPU[0]),
        Cost("page", "streaming", "API", 1, api_second, CPU[1]),
    ]
    return [
        *(served if api else []),
        Cost("page", "passage", "", 1, cpu_each, CPU[0]),
        Cost("page", "streaming", "", 1, cpu_second, CPU[1]),
        Cost("page", "writing window", "", 1, max(0.0, grown), "MB"),
        Cost("page", "passage, transactions", "", 1, writes_each, "writes"),
        Cost("page", "streaming, transactions", "", 1, writes_second, "writes a second"),
        Cost("page", "first words", "", TABS, statistics.median(firsts), "s"),
    ]


def line(points: list[tuple[float, float]]) -> tuple[float, float]:
    """Least squares: what is there at 0, and what comes with each unit; neither below 0.

    >>> line([(0, 1), (1, 3), (2, 5)])
    (1.0, 2.0)
    """
    slope, start = statistics.linear_regression(*zip(*points, strict=True))
    return max(0.0, start), max(0.0, slope)


async def _writes(server: Server) -> float:
    async with httpx.AsyncClient(timeout=60) as http:
        told = (await http.get(f"{server.url}/metrics")).text
    return float(re.findall(r"^storygen_database_write_seconds_count (\S+)", told, re.M)[0])


async def _wire(server: Server) -> list[Cost]:
    """Bytes between browser and page, uncompressed: of a passage, and of opening the page."""
    rows = []
    async with wire(server.port) as (port, counter):
        through = Server(server.process, port, server.log, server.data)
        async with connecting(through, server.cookie) as connect:
            client = await connect()
            await written(client, SHORT)
            for tokens in (SHORT, LONG):
                up, down = counter.up, counter.down
                await written(client, tokens)
                rows.append((4 * tokens, counter.down - down, counter.up - up))
    each, character = line([(length, down) for length, down, _ in rows])
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
        html = (await http.get("/")).text
        names = set(re.findall(r'(?:src|href)="(/[^"]+)"', html))
        sizes = [len((await http.get(name)).content) for name in names]
    return [
        Cost("page", "passage, received", "", 1, each, "bytes"),
        Cost("page", "a character, received", "", 1, character, "bytes"),
        Cost("page", "passage, sent", "", 1, statistics.mean(up for *_, up in rows), "bytes"),
        Cost("page", "page opened anew", "", 1, len(html) + sum(sizes), "bytes"),
    ]


async def _sign_in() -> list[Cost]:
    kept = await passwords.hashed("a lamp in the rain")
    before = time.process_time()
    for _ in range(3):
        await passwords.matches(kept, "a lamp in the rain")
    return [Cost("page", "sign in", "", 1, (time.process_time() - before) / 3, "CPU s")]


# The stories alone.


async def store(rounds: int, folder: Path) -> list[Cost]:
    """What a passage costs where stories are kept: processor time on both sides, room, log."""
    path = folder / "stories.db"
    url = f"sqlite+aiosqlite:///{path}"
    rows = await _stored("SQLite", url, rounds, lambda: float(_file(path)), None)
    if postgres.program("initdb") is None:
        print("There is no PostgreSQL server here: apt install postgresql")
        return rows
    with postgres.running() as server:
        url = server.new_database()
        name = urlsplit(url).path[1:]

        def asked(query: str) -> Callable[[], float]:
            return lambda: float(server.run(query, database=name))

        size = asked("SELECT pg_database_size(current_database())")
        log = asked("SELECT pg_current_wal_lsn() - '0/0'")
        assert server._process is not None
        process = server._process.pid
        rows += await _stored("PostgreSQL", url, rounds, size, log, lambda: cpu_seconds(process))
    return rows


def _file(path: Path) -> int:
    """Bytes of SQLite's file when what is in its log is in the file."""
    with sqlite3.connect(path) as database:
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        (each,) = database.execute("PRAGMA page_size").fetchone()
    return int(pages * each)


async def _stored(
    kind: str,
    url: str,
    rounds: int,
    size: Callable[[], float],
    log: Callable[[], float] | None,
    server_cpu: Callable[[], float] = lambda: 0.0,
) -> list[Cost]:
    """A passage of the writer and one of the model that grew twice, over and over."""
    stories = await StoryStore.open(url)
    text = (WORDS + " ") * 8
    story_ids = []
    for _ in range(5):
        story_ids.append((await stories.add_story(OWNER, **EMPTY)).id)

    async def pair(story_id: str) -> None:
        await stories.add_passage(OWNER, story_id, "writer", text[:100])
        grown = await stories.add_passage(
            OWNER, story_id, "model", text[:40], model="mystery", params={}, state="streaming"
        )
        await stories.grow_passage(OWNER, grown.id, text[: STORED // 2])
        await stories.grow_passage(
            OWNER, grown.id, text[:STORED], state="complete", finish_reason="length"
        )

    for story_id in story_ids:
        await pair(story_id)
    n = 40 * rounds
    logged = log() if log else 0.0
    had, used, theirs, began = size(), time.process_time(), server_cpu(), time.monotonic()
    for turn in range(n):
        await pair(story_ids[turn % len(story_ids)])
    took, cpu = time.monotonic() - began, time.process_time() - used
    theirs, written = server_cpu() - theirs, (log() - logged) if log else 0.0
    room = size() - had
    await stories.close()
    rows = [
        Cost("store", "a write, here", kind, 1, cpu / (4 * n), "CPU s"),
        Cost("store", "a write, waited for", kind, 1, took / (4 * n), "s"),
        Cost("store", "a passage and its prompt, kept", kind, 1, room / n, "bytes"),
    ]
    if log:
        rows.append(Cost("store", "a write, in the server", kind, 1, theirs / (4 * n), "CPU s"))
        rows.append(Cost("store", "a write, in the log", kind, 1, written / (4 * n), "bytes"))
    return rows


def machine(others: float) -> dict[str, str]:
    """Where and when."""
    return {
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "date": date.today().isoformat(),
        "others took": f"{others:.0%}",
    }


def measured(args: argparse.Namespace) -> Iterator[Cost]:
    """The parts that were asked for."""
    folder = ROOT / "runs/scale"
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if "engine" in args.parts:
            yield from asyncio.run(engine(args.models, args.forms, args.rounds, folder))
        if "page" in args.parts:
            yield from asyncio.run(page(args.rounds, temporary))
        if "apart" in args.parts:
            yield from asyncio.run(apart(args.rounds, temporary / "apart"))
        if "store" in args.parts:
            yield from asyncio.run(store(args.rounds, temporary))


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--parts", nargs="+", default=["engine", "page", "apart", "store"])
    parser.add_argument("--models", nargs="+", default=["mystery", "movie-plots", *SIZES])
    parser.add_argument("--forms", nargs="+", default=["int8", "int4", "bf16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=FILE)
    args = parser.parse_args()
    watch = Watch()
    new = list(measured(args))
    old = Costs.read(args.out).rows if args.out.exists() else []
    kept = [row for row in old if row.part not in args.parts]
    Costs(kept + new, machine(watch.others())).write(args.out)
    for row in new:
        print(f"{row.measure:34}{row.of:20}{row.at:4}{row.value:12.4g} {row.unit}")


if __name__ == "__main__":
    main()
