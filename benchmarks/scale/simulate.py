"""From writers to what they need: replicas, pages, a database, sockets, and how long one waits.

    python -m benchmarks.scale.simulate [--costs benchmarks/scale/costs.csv]
        [--model "mystery int8"] [--out benchmarks/scale/capacity.csv]

Costs are measured (costs.py), what writers do is assumed (assumptions.py), and how they meet is
simulated (replica.py). Prints and keeps one row a figure.
"""

import argparse
import csv
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks.scale.assumptions import (
    CARDS,
    SIZES,
    VARIED,
    Machines,
    Writers,
    card_tokens,
    varied,
)
from benchmarks.scale.costs import FILE, Costs
from benchmarks.scale.replica import Replica, Waits, simulate
from storygen.settings import ROOT

OUT = ROOT / "benchmarks/scale/capacity.csv"
# Passages of a simulation, of each that looks for the right size, and of those of one replica.
PASSAGES, SHORTER, LONGER = 6000, 1500, 40_000
SLOTS = 8
MACHINES = Machines()
MODELS = ("mystery int8", "small int8", "gpt2 int8")


@dataclass(frozen=True)
class Plan:
    """What so many writers need of one model, in the busiest hour and in a year."""

    costs: Costs
    model: str
    writers: int
    habits: Writers
    machines: Machines = MACHINES

    @cached_property
    def replica(self) -> Replica:
        """One engine on one core."""
        habits, worth = self.habits, self.machines.core_is_worth
        read = self.costs("read a token", self.model, 1) / worth
        written = [self.costs("write a token", self.model, n) / worth for n in (1, 2, 4, 8)]

        def token(n: int) -> float:
            return n * written[min(3, max(0, math.ceil(math.log2(n))))]

        def reading(chance: random.Random) -> float:
            return read * (1 if chance.random() < habits.remembered else habits.prompt)

        def tokens(chance: random.Random) -> float:  # some end early; none is longer
            return habits.tokens * chance.choice((1, 1, 1, 0.5))

        return Replica(SLOTS, token, reading, tokens)

    @property
    def core_seconds(self) -> float:
        """Of the engine for a passage, eight at a time."""
        habits = self.habits
        read = self.costs("read a token", self.model, 1) * habits.prompt * (1 - habits.remembered)
        written = habits.tokens * 0.875 * self.costs("write a token", self.model, SLOTS)
        return (read + written) / self.machines.core_is_worth

    @property
    def seconds(self) -> float:
        """That a passage takes with four at a time, about."""
        return self.habits.tokens * 0.875 * self.replica.token(4)

    @property
    def passages(self) -> float:
        """A second, in the busiest hour."""
        return self.habits.active(self.writers) / (self.habits.pause + self.seconds)

    @property
    def told(self) -> float:
        """Passages that page and database have to do with, for each that a model writes."""
        return 1 + self.habits.typed * self.habits.typing

    @cached_property
    def engine(self) -> tuple[int, Waits]:
        """Replicas of one core, and what one waits for then; stories stay with their replica, so
        each has a line of its own."""
        n = max(1, math.ceil(self.passages * self.core_seconds / self.machines.engine_load))
        while True:
            waits = simulate(self.replica, self.passages / n, SHORTER)
            if waits.first(0.95) <= self.machines.first_word:
                return n, simulate(self.replica, self.passages / n, PASSAGES)
            n = max(n + 1, math.ceil(n * 1.1))

    @property
    def page_cores(self) -> float:
        """Cores' worth of work of the pages. Several of them share an engine elsewhere, and to ask
        it costs more."""
        return self.cores_of_pages("page" if self.is_apart else "")

    @property
    def is_apart(self) -> bool:
        """Whether one page, with the engine in its process, is not enough."""
        return self.cores_of_pages("") > self.machines.page_load

    @property
    def api_cores(self) -> float:
        """Cores' worth of work of the engines' doors, where they are elsewhere."""
        return self._written_cores("API", 1.0) if self.is_apart else 0.0

    def cores_of_pages(self, of: str) -> float:
        """Cores' worth of work of pages whose engine is in them, or elsewhere (`page`)."""
        idle = self.costs("idle window") * self.open_windows
        return self._written_cores(of, self.told) + idle

    def _written_cores(self, of: str, share: float) -> float:
        each = self.costs("passage", of) * share + self.costs("streaming", of) * self.seconds
        return self.passages * each

    @property
    def open_windows(self) -> float:
        """In the busiest hour."""
        return self.habits.active(self.writers) * self.habits.windows

    @property
    def page_memory(self) -> float:
        """MB of all windows; each page has its own besides."""
        writing = self.habits.active(self.writers) * self.costs("writing window")
        return self.open_windows * self.costs("window") + writing

    @property
    def pages(self) -> int:
        """Processes: each has one core, and so much memory."""
        room = self.machines.page_memory - self.costs("page alone")
        return max(
            1,
            math.ceil(self.page_cores / self.machines.page_load),
            math.ceil(self.page_memory / room),
            math.ceil(self.open_windows / self.machines.descriptors),
        )

    @property
    def writes(self) -> float:
        """Transactions a second."""
        each = self.costs("passage, transactions") * self.told
        return self.passages * (each + self.costs("streaming, transactions") * self.seconds)

    @property
    def kept(self) -> float:
        """Bytes that come to the database in a year."""
        a_year = self.habits.passages_a_year(self.writers, self.seconds)
        each = self.costs("a passage and its prompt, kept", "PostgreSQL")
        return a_year * each * self.habits.tokens / 160  # which is how long the measured ones were

    @property
    def bits(self) -> float:
        """A second, to all windows."""
        length = self.habits.tokens * self.habits.characters
        each = self.costs("passage, received") + self.costs("a character, received") * length
        return 8 * self.passages * each

    def figures(self) -> Iterator[tuple[str, float, str]]:
        """All of it."""
        replicas, waits = self.engine
        yield "write at once", self.habits.active(self.writers), "writers"
        yield "passages", self.passages, "a second"
        yield "tokens", self.passages * self.habits.tokens * 0.875, "a second"
        yield "engine, work", self.passages * self.core_seconds, "cores"
        yield "engine, replicas", replicas, "of one core"
        yield "engine, busy", waits.busy, "share"
        for name, share in (("half", 0.5), ("19 of 20", 0.95), ("99 of 100", 0.99)):
            yield f"first word from the engine, {name}", waits.first(share), "s"
        yield "engine's API, work", self.api_cores, "cores"
        yield "pages, work", self.page_cores, "cores"
        yield "pages, processes", self.pages, "processes"
        memory = self.pages * self.costs("page alone") + self.page_memory
        yield "pages, memory", memory / 1000, "GB"
        yield "sockets", self.open_windows, "open"
        yield "database, writes", self.writes, "a second"
        yield "database, cores", self.writes * self.costs(SERVER, "PostgreSQL"), "cores"
        yield "database, sessions", self.pages * self.machines.sessions_a_page, "at most"
        yield "database, grows by", self.kept / 1e9, "GB a year"
        yield "network", self.bits / 1e6, "Mbit/s"


SERVER = "a write, in the server"


def limits(costs: Costs, model: str, habits: Writers) -> dict[str, float]:
    """With how many writers each single thing has no more to give. All needs grow as the writers
    do, so what very many need says it."""
    many, machines = 10_000_000, MACHINES
    plan = Plan(costs, model, many, habits)
    shares = {
        "the engine's one core": plan.passages * plan.core_seconds / machines.engine_load,
        "the page's one core": plan.cores_of_pages("") / machines.page_load,
        "the page's memory": plan.page_memory / (machines.page_memory - costs("page alone")),
        "SQLite's one writer": plan.writes
        * costs("a write, waited for", "SQLite")
        / machines.sqlite_load,
        "1,024 open files, Linux' default": plan.open_windows / 1024,
        "65,536 open files": plan.open_windows / machines.descriptors,
        "one proxy's ports": plan.open_windows / machines.proxy_sockets,
        "one proxy's network": plan.bits / machines.proxy_bits,
        "PostgreSQL's sessions": plan.pages * machines.sessions_a_page / machines.server_sessions,
        "PostgreSQL's processors": plan.writes
        * costs(SERVER, "PostgreSQL")
        / (machines.server_cores * machines.server_load),
        "PostgreSQL's disk": plan.writes / machines.server_commits,
        "PostgreSQL's room, in a year": plan.kept / machines.server_room,
    }
    return {name: many / share for name, share in shares.items()}


def first_words(costs: Costs, model: str, habits: Writers) -> Iterator[tuple[float, Waits]]:
    """How waiting grows on one replica, by the share of its time that it is asked for."""
    plan = Plan(costs, model, 1, habits)
    for load in (0.3, 0.5, 0.7, 0.8, 0.9, 0.95):
        yield load, simulate(plan.replica, load / plan.core_seconds, LONGER)


def sensitivity(costs: Costs, model: str, writers: int) -> Iterator[tuple[str, str, float, float]]:
    """What halving and doubling each assumption does to three needs, as factors."""
    habits = SIZES[writers]
    needs = {
        "engine": lambda p: p.passages * p.core_seconds,
        "pages": lambda p: p.page_cores,
        "database writes": lambda p: p.writes,
        "storage": lambda p: p.kept,
    }
    usual = Plan(costs, model, writers, habits)
    for name in VARIED:
        halved, doubled = (
            Plan(costs, model, writers, varied(habits, name, factor)) for factor in (0.5, 2)
        )
        for need, of in needs.items():
            yield name, need, of(halved) / of(usual), of(doubled) / of(usual)


def rows(costs: Costs, model: str) -> Iterator[tuple[str, str, str, float, str]]:
    """Everything that is kept: table, of what, measure, value, unit."""
    for each in [m for m in MODELS if m in costs.names("write a token")]:
        for writers, habits in SIZES.items():
            plan = Plan(costs, each, writers, habits)
            for measure, value, unit in plan.figures():
                yield "needs", f"{each}, {writers}", measure, value, unit
            for card in CARDS:
                tokens = plan.passages * habits.tokens
                yield "cards", f"{each}, {writers}", card, tokens / card_tokens(card), "cards"
    for name, value in limits(costs, model, SIZES[10_000]).items():
        yield "limits", model, name, value, "writers"
    for load, waits in first_words(costs, model, SIZES[10_000]):
        for share in (0.5, 0.95, 0.99):
            yield "waits", f"{load:g}", f"{share:g}", waits.first(share), "s"
    for name, need, half, double in sensitivity(costs, model, 10_000):
        yield "halved", name, need, half, "times"
        yield "doubled", name, need, double, "times"


def main() -> None:
    """Simulate, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--costs", type=Path, default=FILE)
    parser.add_argument("--model", default=MODELS[0])
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    with args.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("table", "of", "measure", "value", "unit"))
        for table, of, measure, value, unit in rows(Costs.read(args.costs), args.model):
            writer.writerow((table, of, measure, f"{value:.4g}", unit))
            print(f"{table:9}{of:24}{measure:40}{value:12.4g} {unit}", flush=True)


if __name__ == "__main__":
    main()
