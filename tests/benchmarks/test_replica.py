"""The simulated queue against what is worked out by hand for the queues that allow it."""

import math

import pytest

from benchmarks.scale.replica import Replica, percentile, simulate

N = 60_000


def erlang_c(servers, load):
    """The share of those who wait in M/M/c, with load = arrivals / rate of one server."""
    blocked = 1.0  # Erlang B, by its recursion
    for n in range(1, servers + 1):
        blocked = load * blocked / (n + load * blocked)
    share = load / servers
    return blocked / (1 - share * (1 - blocked))


def exponential(mean):
    return lambda chance: chance.expovariate(1 / mean)


def no_reading(_):
    return 0.0


@pytest.mark.parametrize(
    ("servers", "load", "waits"),
    [
        (1, 0.5, 1 / 2),
        (2, 1.0, 1 / 3),
        (3, 2.0, 4 / 9),  # 8/6 * 3 / (1 + 2 + 2 + 4) = 4/9
        (2, 1.5, 9 / 14),  # 2.25/2 * 4 / (1 + 1.5 + 4.5) = 4.5/7
    ],
)
def test_erlang_c_is_what_it_is_by_hand(servers, load, waits):
    assert erlang_c(servers, load) == pytest.approx(waits)


@pytest.mark.parametrize(("slots", "load"), [(1, 0.5), (2, 1.0), (3, 2.0)])
def test_slots_that_do_not_slow_each_other_are_m_m_c(slots, load):
    """Mean passages of 100 tokens at 10 ms each: a second. Wq = C / (c - a), and of those who wait
    the time is exponential."""
    replica = Replica(slots, lambda n: 0.01, no_reading, exponential(100))
    waits = simulate(replica, load, N)
    mean = erlang_c(slots, load) / (slots - load)
    assert waits.mean_in_line == pytest.approx(mean, rel=0.08)
    p99 = math.log(erlang_c(slots, load) / 0.01) / (slots - load)
    assert percentile(waits.in_line, 0.99) == pytest.approx(p99, rel=0.1)


def test_one_machine_shared_by_all_is_processor_sharing():
    """M/M/1-PS at half its load: a passage of a second takes two in the mean, and half of the time
    nothing runs."""
    replica = Replica(1000, lambda n: 0.01 * n, no_reading, exponential(100))
    waits = simulate(replica, 0.5, N)
    assert sum(waits.whole) / len(waits.whole) == pytest.approx(2.0, rel=0.08)
    assert waits.busy == pytest.approx(0.5, abs=0.02)


def test_reading_alone_is_m_d_1():
    """Passages of no length behind prompts of a fixed 0.5 s at one a second: Pollaczek-Khinchine
    gives a mean of 0.5 * 0.5 / (2 * 0.5) = 0.25 s before them."""
    replica = Replica(1, lambda n: 0.0, lambda _: 0.5, lambda _: 1.0)
    waits = simulate(replica, 1.0, N)
    assert waits.mean_in_line == pytest.approx(0.25, rel=0.08)


def test_the_same_seed_gives_the_same_waits():
    replica = Replica(4, lambda n: 0.01 * n, exponential(0.1), exponential(50))
    assert simulate(replica, 0.5, 500) == simulate(replica, 0.5, 500)
