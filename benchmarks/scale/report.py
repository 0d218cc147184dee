"""docs/scale.md, made of the figures that were measured, assumed and simulated.

python -m benchmarks.scale.report
"""

import csv
import textwrap
from dataclasses import fields
from pathlib import Path

from benchmarks.scale.assumptions import (
    CARD_STEP,
    CARDS,
    HOURS,
    SIZES,
    Machines,
    Writers,
    card_tokens,
)
from benchmarks.scale.costs import FILE, TABS, Costs
from benchmarks.scale.simulate import LONGER, MODELS, OUT, SLOTS
from storygen.settings import ROOT

PAGE = ROOT / "docs/scale.md"

# What to do where a single thing has no more to give; see simulate.limits.
REMEDIES = {
    "the engine's one core": "more cores for it (`STORYGEN_THREADS`); then an engine of its own "
    "(`STORYGEN_ENGINE_URL`), several replicas of it, or a card",
    "the page's one core": "several pages behind a proxy that keeps a writer at one of them, over "
    "one PostgreSQL; each takes a core",
    "the page's memory": "a larger bound (`MemoryMax`, compose's `mem_limit`), or several pages",
    "SQLite's one writer": "PostgreSQL",
    "1,024 open files, Linux' default": "`LimitNOFILE=65536` in the service's unit",
    "65,536 open files": "several pages, which other limits ask for long before",
    "one proxy's ports": "several addresses behind the proxy, which several pages are, or several "
    "proxies by DNS",
    "one proxy's network": "several proxies by DNS",
    "PostgreSQL's sessions": "fewer sessions for each page; then several servers",
    "PostgreSQL's processors": "a larger server; then several",
    "PostgreSQL's disk": "a disk that syncs faster; then several servers",
    "PostgreSQL's room, in a year": "more disk; then several servers",
}

# What the names of the assumptions say to a reader.
HABITS = {
    "daily": "of all writers, those who write on a day",
    "minutes": "minutes that such a writer writes on such a day",
    "together": "at least this share writes at once (100 writers: a lesson)",
    "pause": "seconds between the end of a passage and the next wish",
    "tokens": "longest passage, tokens; a quarter of them end half way",
    "characters": "characters of a token",
    "prompt": "tokens read where the engine remembers nothing of a story",
    "remembered": "share of passages whose story the engine remembers",
    "typed": "passages of one's own for each of a model",
    "typing": "what one of them costs page and database, of one that a model writes",
    "windows": "windows open for each that is written in",
}
MACHINES = {
    "first_word": "seconds to the first word for 19 of 20 passages, from the engine",
    "engine_load": "share of its time that an engine may be at work",
    "page_load": "share of its core that a page may be at work",
    "core_is_worth": "of the core that was measured, a core of the machine to be bought",
    "page_memory": "MB of a page's process",
    "descriptors": "open files of a process",
    "sqlite_load": "share of the time in which SQLite may be writing",
    "server_cores": "cores of a PostgreSQL server",
    "server_load": "share of its time that it may be at work",
    "server_commits": "synced commits a second of its disk",
    "server_sessions": "sessions of it",
    "server_room": "bytes of its disk",
    "sessions_a_page": "sessions of a page, at most",
    "proxy_bits": "bits a second of a proxy",
    "proxy_sockets": "connections of a proxy to one address",
}


class Capacity:
    """What was simulated, by table, of what, and measure."""

    def __init__(self, path: Path) -> None:
        with path.open(newline="", encoding="utf-8") as file:
            self.rows = list(csv.DictReader(file))

    def table(self, name: str) -> list[tuple[str, str, float, str]]:
        """Rows of a table: of what, measure, value, unit."""
        found = [row for row in self.rows if row["table"] == name]
        return [(r["of"], r["measure"], float(r["value"]), r["unit"]) for r in found]


def text(costs: Costs, capacity: Capacity) -> str:
    """The page."""
    where = costs.machine
    parts = [
        "# How many writers it carries",
        "What 100, 10,000 and a million writers need, and which part gives way first. Three kinds "
        "of figures come together here, and each table says which it shows: **measured** on one "
        "machine, **assumed** of writers and of hardware that is not here, and **worked out** from "
        "both by a simulation. No cluster of this size was ever run.",
        "```\n"
        "python -m benchmarks.scale.costs       # measures; nothing else should run\n"
        "python -m benchmarks.scale.simulate    # works out benchmarks/scale/capacity.csv\n"
        "python -m benchmarks.scale.report      # writes this page\n"
        "```",
        f"Measured on {where['processor']}, {where['date']}; other programs took "
        f"{where['others took']} of the cores that this could use. Figures in processor time "
        "suffer from that by the cache they share, those in seconds by more.",
        "## What things cost (measured)",
        _engine(costs),
        _page(costs),
        _store(costs),
        "## What is assumed",
        _assumed(),
        "## What writers need (worked out)",
        _needs(capacity),
        "Cards were **not measured here**. What follows is assumed: the steps a second for which "
        "the memory in the card's data sheet can be read, with 0.25 GB of weights, a third of "
        f"that, none shorter than {1000 * CARD_STEP:g} ms, and as many writers in a step as the "
        "table says. For the model of GPT-2's size:",
        _cards(capacity),
        "## How long one waits (worked out)",
        _waits(capacity, costs),
        "## What gives way first (worked out)",
        "With how many writers, of the habits above, each single thing has no more to give. Read "
        "it downwards: it is the order in which a growing installation meets them.",
        _limits(capacity),
        "## What matters most (worked out)",
        "Each assumption halved and doubled, at 10,000 writers; what that does to the work.",
        _sensitivity(capacity),
        "A guess about how much people write is worth more care than any of the machine's figures.",
    ]
    return "\n\n".join("\n\n".join(map(_wrapped, p.split("\n\n"))) for p in parts) + "\n"


def _wrapped(block: str) -> str:
    """A paragraph in lines of the usual length; what is no paragraph as it is."""
    if block.startswith(("|", "#", "```")):
        return block
    return textwrap.fill(block, 100, break_long_words=False, break_on_hyphens=False)


def _engine(costs: Costs) -> str:
    rows = []
    for of in costs.names("write a token"):
        written = [costs("write a token", of, n) for n in (1, 2, 4, 8)]
        passage = 140 * written[-1] + 105 * costs("read a token", of, 1)
        cells = [costs("read a token", of, 1), *written]
        rows.append([of, *(f"{1000 * value:.2f}" for value in cells), f"{passage:.3f}"])
    head = ["engine, one thread", "read a token, ms", "write one: alone, ms", "of 2", "of 4"]
    return (
        _table([*head, f"of {SLOTS}", "a passage, s"], rows)
        + "\n\nProcessor time, sampling and the engine's own bookkeeping included. A passage: 140 "
        "tokens written among eight, and 105 read, which is a story not remembered three times in "
        "ten. `tiny`, `small` and `gpt2` are random weights of those sizes."
    )


def _page(costs: Costs) -> str:
    shown = [
        ("a window that does nothing", costs("idle window") * 1000, "ms of a core each second"),
        ("opening a window", costs("open a window") * 1000, "ms of a core"),
        ("a passage", costs("passage") * 1000, "ms of a core"),
        ("and for each second of its words", costs("streaming") * 1000, "ms of a core"),
        ("a passage, engine elsewhere", costs("passage", "page") * 1000, "ms of a core"),
        ("and for each second", costs("streaming", "page") * 1000, "ms of a core"),
        ("the same, in the engine's API", costs("passage", "API") * 1000, "ms of a core"),
        ("and for each second", costs("streaming", "API") * 1000, "ms of a core"),
        ("signing in with a password", costs("sign in") * 1000, "ms of a core"),
        ("the process before anybody comes", costs("page alone"), "MB"),
        ("a window", costs("window"), "MB"),
        ("and once it is written in", costs("writing window"), "MB"),
        ("a passage, received", costs("passage, received"), "bytes"),
        ("and for each character of it", costs("a character, received"), "bytes"),
        ("opening the page for the first time", costs("page opened anew") / 1e6, "MB"),
        ("a passage", costs("passage, transactions"), "transactions"),
        ("and for each second of its words", costs("streaming, transactions"), "transactions"),
        (
            "first words, four at once, engine at no cost",
            costs("first words", at=TABS) * 1000,
            "ms",
        ),
    ]
    return _table(
        ["page, one process", "", ""], [[a, _number(value), unit] for a, value, unit in shown]
    )


def _store(costs: Costs) -> str:
    kinds = costs.names("a write, here")
    rows = []
    for name, measure, factor, unit in (
        ("a transaction, in the page's process", "a write, here", 1000, "ms of a core"),
        ("in the server", "a write, in the server", 1000, "ms of a core"),
        ("until it is stored", "a write, waited for", 1000, "ms"),
        ("in the log that is synced", "a write, in the log", 1, "bytes"),
        ("a passage and its prompt, kept", "a passage and its prompt, kept", 1, "bytes"),
    ):
        known = costs.names(measure)
        cells = [_number(factor * costs(measure, k, 1)) if k in known else "" for k in kinds]
        rows.append([name, *cells, unit])
    note = (
        "A passage of 640 characters that was stored as it grew, and 100 characters typed before "
        "it. PostgreSQL ran without waiting for its disk."
    )
    return _table(["stories", *kinds, ""], rows) + "\n\n" + note


def _assumed() -> str:
    school, usual = SIZES[100], SIZES[10_000]
    rows = []
    for field in fields(Writers):
        value = getattr(usual, field.name)
        other = getattr(school, field.name)
        shown = f"{value:g}" if value == other else f"{other:g} for 100 writers, else {value:g}"
        rows.append([HABITS[field.name], shown])
    rows.append(["share of a day's writing in its busiest hour", f"{max(HOURS):g}"])
    machines = Machines()
    rows += [[MACHINES[f.name], f"{getattr(machines, f.name):,g}"] for f in fields(Machines)]
    note = (
        "None of these was observed: they are guesses to be replaced by one's own, in "
        "`benchmarks/scale/assumptions.py`. At once, in the busiest hour, write "
        f"{school.busiest:.1%} of 100 writers and {usual.busiest:.2%} of the others."
    )
    return _table(["of writers and machines", "assumed"], rows) + "\n\n" + note


def _needs(capacity: Capacity) -> str:
    found = {(of, measure): (value, unit) for of, measure, value, unit in capacity.table("needs")}
    measures = list(dict.fromkeys(measure for _, measure in found))
    parts = []
    for model in dict.fromkeys(of.rpartition(", ")[0] for of, _ in found):
        head = [f"`{model}`", *(f"{n:,} writers" for n in SIZES), ""]
        rows = []
        for measure in measures:
            if model != MODELS[0] and not measure.startswith(("engine", "first word")):
                continue
            cells = [found[f"{model}, {n}", measure] for n in SIZES]
            unit = cells[0][1]
            whole = unit in ("processes", "of one core", "at most")
            values = [f"{value:,.0f}" if whole else _number(value) for value, _ in cells]
            rows.append([measure, *values, unit])
        parts.append(_table(head, rows))
    note = (
        f"A replica is one core with {SLOTS} slots; stories stay with theirs. There are as many as "
        "the work and the first word ask for. The next tables leave out what does not depend on "
        "the model."
    )
    return "\n\n".join([parts[0], note, *parts[1:]])


def _cards(capacity: Capacity) -> str:
    found = {(of, card): value for of, card, value, _ in capacity.table("cards")}
    rows = []
    for card in CARDS:
        cells = [_number(found[f"gpt2 int8, {n}", card]) for n in SIZES]
        rows.append([card, f"{CARDS[card][1]}", f"{card_tokens(card):,.0f}", *cells])
    head = ["card", "writers in a step", "tokens a second", *(f"{n:,} writers" for n in SIZES)]
    return _table(head, rows)


def _waits(capacity: Capacity, costs: Costs) -> str:
    found = {(of, share): 1000 * value for of, share, value, _ in capacity.table("waits")}
    loads = list(dict.fromkeys(of for of, _ in found))
    rows = [
        [f"{float(load):.0%}", *(_number(found[load, share]) for share in ("0.5", "0.95", "0.99"))]
        for load in loads
    ]
    head = ["work asked of a replica", "half, ms", "19 of 20, ms", "99 of 100, ms"]
    page = 1000 * costs("first words", at=TABS)
    return (
        _table(head, rows)
        + f"\n\nTo the first word, from one replica of `{MODELS[0]}`, {LONGER:,} passages that "
        f"arrive at random. The page adds {page:.0f} ms where four ask at "
        "once. The simulated line is tried against M/M/c, processor sharing and M/D/1, whose waits "
        "are known (`tests/benchmarks/test_replica.py`)."
    )


def _limits(capacity: Capacity) -> str:
    rows = [
        [measure, _round(value), REMEDIES[measure]]
        for _, measure, value, _ in sorted(capacity.table("limits"), key=lambda row: row[2])
    ]
    steps = []
    known = sorted(capacity.table("limits"), key=lambda row: row[2])
    for writers in SIZES:
        past = [measure for _, measure, value, _ in known if value < writers]
        to_come = [measure for _, measure, value, _ in known if value >= writers]
        steps.append([f"{writers:,}", "; ".join(past) or "nothing", to_come[0]])
    return (
        _table(["what", "writers", "then"], rows)
        + "\n\nSeveral servers of PostgreSQL: each with the stories of some writers. Every "
        "statement names the owner, so stories divide, but nothing here does it yet."
        + "\n\nSo, of an installation that has one of each:\n\n"
        + _table(["writers", "has given way", "is next"], steps)
        + "\n\nThese are writers of the usual habits. A class of 100 in a lesson counts for "
        f"{_round(100 * SIZES[100].busiest / SIZES[10_000].busiest)} of them."
    )


def _sensitivity(capacity: Capacity) -> str:
    halved = {(of, need): value for of, need, value, _ in capacity.table("halved")}
    doubled = {(of, need): value for of, need, value, _ in capacity.table("doubled")}
    needs = list(dict.fromkeys(need for _, need in halved))
    names = list(dict.fromkeys(of for of, _ in halved))

    def swing(name: str) -> float:
        return max(doubled[name, n] / halved[name, n] for n in needs) + max(
            halved[name, n] / doubled[name, n] for n in needs
        )

    rows = [
        [HABITS[name], *(f"{halved[name, n]:.2f} … {doubled[name, n]:.2f}" for n in needs)]
        for name in sorted(names, key=swing, reverse=True)
    ]
    return _table(["halved … doubled", *needs], rows)


def _number(value: float) -> str:
    """
    >>> [_number(x) for x in (0, 0.000417, 0.1234, 3.14159, 27.18, 1234567)]
    ['0', '0.00042', '0.12', '3.1', '27', '1,234,567']
    """
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _round(value: float) -> str:
    """
    >>> _round(1234567)
    '1,200,000'
    """
    return f"{float(f'{value:.2g}'):,.0f}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Write the page."""
    PAGE.write_text(text(Costs.read(FILE), Capacity(OUT)), encoding="utf-8")


if __name__ == "__main__":
    main()
