import threading
from types import SimpleNamespace

import pytest

from storygen.engine import opener
from storygen.engine.shelf import Shelf
from storygen.errors import EngineError


class Opened:
    """Stands for a Runner."""

    def __init__(self, name):
        if name == "broken":
            raise OSError("by hand")
        self.name, self.closed = name, False

    def close(self):
        self.closed = True


class Reader:
    """A shelf, and whoever waits for what it opens."""

    def __init__(self, size, open_runner=Opened, **more):
        self.told = threading.Semaphore(0)
        self.shelf = Shelf(size, open_runner, self.told.release, **more)

    def take(self, name, busy):
        """The runner, once it is open."""
        runner = self.shelf.take(name, busy)
        if runner is None:
            assert self.told.acquire(timeout=60)
            runner = self.shelf.take(name, busy)
        return runner


def test_a_model_is_opened_once():
    reader = Reader(2)
    assert reader.take("a", {"a"}) is reader.take("a", {"a"})


def test_the_longest_unused_goes_first():
    reader = Reader(2)
    a, b, *_ = [reader.take(name, {name}) for name in ("a", "b", "a", "c")]
    assert reader.shelf.names == ["a", "c"]
    assert (a.closed, b.closed) == (False, True)


def test_a_busy_model_stays():
    reader = Reader(2)
    for name in ("a", "b"):
        reader.take(name, {name})
    reader.take("c", {"a", "c"})
    assert reader.shelf.names == ["a", "c"]


def test_a_model_that_cannot_be_opened_leaves_nothing_behind():
    reader = Reader(2)
    reader.take("a", {"a"})
    for _ in range(2):
        with pytest.raises(OSError, match="by hand"):
            reader.take("broken", {"broken"})
    assert reader.shelf.names == ["a"]


def test_a_dropped_model_is_opened_anew():
    reader = Reader(2)
    first = reader.take("a", {"a"})
    reader.shelf.drop("a")
    assert reader.take("a", {"a"}) is not first
    reader.shelf.clear()
    assert reader.shelf.names == []


def test_others_are_at_hand_while_one_is_opened():
    gate = threading.Event()

    def open_runner(name):
        if name == "slow":
            gate.wait()
        return Opened(name)

    reader = Reader(2, open_runner)
    at_hand = reader.take("a", {"a"})
    assert reader.shelf.take("slow", {"a", "slow"}) is None
    assert reader.shelf.is_opening
    assert reader.shelf.take("a", {"a", "slow"}) is at_hand
    assert reader.shelf.take("b", {"a", "slow", "b"}) is None  # no place, and nothing is dropped
    gate.set()
    assert reader.told.acquire(timeout=60)
    assert reader.shelf.take("slow", {"a", "slow"}).name == "slow"
    assert not at_hand.closed


def test_what_nobody_waits_for_any_more_makes_room():
    reader = Reader(1)
    assert reader.shelf.take("a", {"a"}) is None
    assert reader.told.acquire(timeout=60)
    assert reader.take("b", {"b"}).name == "b"
    assert reader.shelf.names == ["b"]


def test_what_is_opened_at_the_end_is_closed():
    opened = []

    def open_runner(name):
        opened.append(Opened(name))
        return opened[0]

    reader = Reader(2, open_runner)
    reader.shelf.take("a", {"a"})
    assert reader.told.acquire(timeout=60)
    reader.shelf.clear()
    assert [runner.closed for runner in opened] == [True]


class Disk:
    """Opens at once, but for what is called `away`, which is read when the disk is back."""

    def __init__(self):
        self.back, self.opened, self.asked = threading.Event(), [], []

    def __call__(self, name):
        self.asked.append(name)
        if name == "away":
            assert self.back.wait(timeout=60)
        self.opened.append(Opened(name))
        return self.opened[-1]


@pytest.fixture
def clock(monkeypatch):
    """Its `now` is what openings are timed by."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(opener, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_what_does_not_open_is_said_and_holds_up_no_other(clock):
    """All later openings waited behind it for ever."""
    disk = Disk()
    reader = Reader(1, disk, patience=120)
    shelf = reader.shelf
    assert shelf.take("away", {"away"}) is None
    clock.now = 120
    assert shelf.take("away", {"away"}) is None
    assert (shelf.is_overdue, shelf.stuck, shelf.opening_seconds) == (False, [], 120)
    clock.now = 121
    assert (shelf.is_overdue, shelf.stuck) == (True, ["away"])
    for _ in range(2):
        with pytest.raises(EngineError, match="away has been opening for 121 seconds"):
            shelf.take("away", {"away"})
    assert (shelf.is_overdue, shelf.stuck) == (False, ["away"])
    assert reader.take("b", {"b"}).name == "b"
    assert disk.asked == ["away", "b"]
    disk.back.set()
    assert reader.told.acquire(timeout=60)
    assert (shelf.stuck, shelf.opening_seconds) == ([], 0)
    assert shelf.take("away", {"away", "b"}) is None  # there is no place
    assert shelf.take("away", {"away"}) is disk.opened[1]
    assert shelf.names == ["away"]
    assert disk.asked == ["away", "b"]


def test_those_in_line_behind_what_does_not_open_come_to_their_turn(clock):
    disk = Disk()
    reader = Reader(2, disk, patience=120)
    for name in ("away", "b"):
        assert reader.shelf.take(name, {"away", "b"}) is None
    clock.now = 121
    assert reader.take("b", {"away", "b"}).name == "b"
    assert reader.shelf.stuck == ["away"]
    disk.back.set()


def one_late(clock):
    """Nobody waits any more for "away", and "b" has its place."""
    disk = Disk()
    reader = Reader(1, disk, patience=120)
    assert reader.shelf.take("away", {"away"}) is None
    clock.now = 121
    reader.take("b", {"b"})
    return disk, reader


def test_what_opens_too_late_for_anybody_is_closed_when_its_place_is_needed(clock):
    disk, reader = one_late(clock)
    disk.back.set()
    assert reader.told.acquire(timeout=60)
    reader.take("c", {"c"})
    assert [(runner.name, runner.closed) for runner in disk.opened] == [
        ("b", True),
        ("away", True),
        ("c", False),
    ]


def test_what_opens_after_the_end_is_closed(clock):
    disk, reader = one_late(clock)
    reader.shelf.clear()
    disk.back.set()
    assert reader.told.acquire(timeout=60)
    assert [(runner.name, runner.closed) for runner in disk.opened] == [("b", True), ("away", True)]
