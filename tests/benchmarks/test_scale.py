"""The capacity page says what its files say, and these follow from the costs."""

import asyncio
import csv
import os
import subprocess
import sys

import pytest

from benchmarks.scale import report, simulate
from benchmarks.scale.assumptions import HOURS, SIZES, VARIED, Machines, Writers, varied
from benchmarks.scale.costs import FILE, Cost, Costs, line
from benchmarks.scale.processes import cpu_seconds, family, wire
from benchmarks.scale.simulate import OUT, Plan, limits, rows, sensitivity


@pytest.fixture(scope="module")
def costs():
    return Costs.read(FILE)


@pytest.fixture
def made_up():
    """Round numbers: 10 ms to write a token however many write, 1 ms to read one."""
    figures = {
        "passage": 0.01,
        "streaming": 0.002,
        "idle window": 0.0001,
        "window": 1.0,
        "writing window": 0.5,
        "page alone": 200.0,
        "passage, transactions": 4.0,
        "streaming, transactions": 2.0,
        "passage, received": 5000.0,
        "a character, received": 2.0,
    }
    found = [Cost("", name, "", 1, value, "") for name, value in figures.items()]
    found.append(Cost("", "read a token", "m", 1, 0.001, ""))
    for of, each, second in (("page", 0.02, 0.004), ("API", 0.005, 0.001)):
        found.append(Cost("", "passage", of, 1, each, ""))
        found.append(Cost("", "streaming", of, 1, second, ""))
    found += [Cost("", "write a token", "m", n, 0.01 / n, "") for n in (1, 2, 4, 8)]
    found += [
        Cost("", "a write, in the server", "PostgreSQL", 1, 0.001, ""),
        Cost("", "a write, waited for", "SQLite", 1, 0.005, ""),
        Cost("", "a passage and its prompt, kept", "PostgreSQL", 1, 2000.0, ""),
    ]
    return Costs(found, {})


def test_the_page_is_made_of_the_files(costs):
    page = report.PAGE.read_text(encoding="utf-8")
    assert page == report.text(costs, report.Capacity(OUT)), "python -m benchmarks.scale.report"


def test_the_capacity_follows_from_the_costs(costs, monkeypatch):
    """All that takes no simulating; of the rest the first replica's figures."""
    with OUT.open(newline="", encoding="utf-8") as file:
        kept = [tuple(row) for row in csv.reader(file)][1:]
    monkeypatch.setattr(simulate, "MODELS", simulate.MODELS[:1])
    monkeypatch.setattr(simulate, "SIZES", {100: SIZES[100], 10_000: SIZES[10_000]})
    monkeypatch.setattr(simulate, "first_words", lambda *_: [])
    for table, of, measure, value, unit in rows(costs, simulate.MODELS[0]):
        assert (table, of, measure, f"{value:.4g}", unit) in kept


def test_costs_read_as_they_were_written(made_up, tmp_path):
    made_up.machine = {"processor": "one, with a comma", "date": "2026-11-22"}
    made_up.write(tmp_path / "costs.csv")
    read = Costs.read(tmp_path / "costs.csv")
    assert (read.rows, read.machine) == (made_up.rows, made_up.machine)
    assert read("write a token", "m", 4) == 0.0025
    with pytest.raises(KeyError):
        read("write a token", "n", 4)


def test_what_writers_need_by_hand(made_up):
    """1,000 of 10,000 write at once. A passage has 140 tokens of 10 ms, so 1.4 s, and comes again
    after 28.6 s more: 33.3 a second. Of three windows each, one writes."""
    habits = Writers(together=0.1, pause=28.6, remembered=0.7, prompt=350.0)
    plan = Plan(made_up, "m", 10_000, habits)
    assert plan.habits.active(10_000) == pytest.approx(1000)
    assert plan.seconds == pytest.approx(1.4)
    assert plan.passages == pytest.approx(1000 / 30)
    assert plan.core_seconds == pytest.approx(140 * 0.01 / 8 + 0.3 * 350 * 0.001)  # 0.28
    near = 1000 / 30 * (0.015 + 1.4 * 0.002) + 3000 * 0.0001
    assert plan.cores_of_pages("") == pytest.approx(near)
    assert near > 0.5  # of a core: so there are several, and the engine is elsewhere
    assert plan.page_cores == pytest.approx(1000 / 30 * (0.03 + 1.4 * 0.004) + 3000 * 0.0001)
    assert plan.api_cores == pytest.approx(1000 / 30 * (0.005 + 1.4 * 0.001))
    assert plan.pages == 3  # 1.49 cores' worth at half a core each, and 3,500 MB in 3,800
    assert plan.writes == pytest.approx(1000 / 30 * (6 + 2.8))
    assert plan.bits == pytest.approx(8 * 1000 / 30 * (5000 + 2 * 640))
    year = 365 * 10_000 * 0.2 * 2400 / 30
    assert plan.kept == pytest.approx(year * 2000)


def test_the_replicas_are_enough_for_the_work_and_the_first_word(made_up):
    plan = Plan(made_up, "m", 10_000, Writers(together=0.1, pause=28.6))
    replicas, waits = plan.engine
    assert replicas >= plan.passages * plan.core_seconds / Machines().engine_load
    assert waits.first(0.95) <= Machines().first_word * 1.1  # a longer run than the search's
    assert waits.busy < 1


def test_limits_are_reached_by_so_many_writers(made_up):
    habits = Writers(together=0.1)
    found = limits(made_up, "m", habits)
    n = round(found["the engine's one core"])
    plan = Plan(made_up, "m", n, habits)
    assert plan.passages * plan.core_seconds == pytest.approx(Machines().engine_load, rel=0.01)
    n = round(found["1,024 open files, Linux' default"])
    assert Plan(made_up, "m", n, habits).open_windows == pytest.approx(1024, rel=0.01)
    assert set(found) == set(report.REMEDIES)


def test_twice_as_many_who_write_are_twice_the_work(made_up):
    found = {(name, need): (a, b) for name, need, a, b in sensitivity(made_up, "m", 10_000)}
    assert found["daily", "engine"] == pytest.approx((0.5, 2))
    assert found["daily", "storage"] == pytest.approx((0.5, 2))
    assert found["windows", "engine"] == (1, 1)
    assert found["remembered", "engine"][0] > 1 > found["remembered", "engine"][1]
    assert {name for name, _ in found} == set(VARIED)


def test_a_day_is_shared_out_among_its_hours():
    assert len(HOURS) == 24
    assert sum(HOURS) == pytest.approx(1)
    assert Writers().busiest == pytest.approx(0.2 * 2 / 3 * 0.09)
    assert varied(Writers(), "remembered", 2).remembered < 1


def test_every_assumption_is_told():
    assert set(report.HABITS) == set(vars(Writers()))
    assert set(report.MACHINES) == set(vars(Machines()))


def test_a_line_is_never_below_nothing():
    assert line([(0, 1.0), (1, 3.0), (2, 5.0)]) == pytest.approx((1, 2))
    assert line([(0, -1.0), (1, -3.0)]) == (0, 0)


def test_processor_time_of_a_child_counts_when_it_has_ended():
    burn = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    before = cpu_seconds(os.getpid())
    process = subprocess.Popen([sys.executable, "-c", burn])
    assert process.pid in family(os.getpid())
    process.wait()
    assert cpu_seconds(os.getpid()) - before >= 0.25


async def test_bytes_of_both_directions_are_counted():
    async def answer(reader, writer):
        writer.write(2 * await reader.readexactly(500))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, wire(server.sockets[0].getsockname()[1]) as (port, counter):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"x" * 500)
        assert await reader.read() == b"x" * 1000
        writer.close()
        assert (counter.up, counter.down) == (500, 1000)
