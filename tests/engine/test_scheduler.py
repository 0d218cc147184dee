import subprocess
import sys
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storygen.engine.scheduler import Scheduler
from storygen.errors import BusyError


@dataclass(eq=False)
class Request:
    model: str = "mystery"
    user: str = "ann"
    is_ready: bool = True


def added(scheduler, *models):
    requests = [Request(model) for model in models]
    for request in requests:
        scheduler.add(request)
    return requests


def test_a_request_starts_at_once_while_there_is_a_slot():
    scheduler = Scheduler(slots=2, queue_size=0, loaded_models=1)
    a, b = added(scheduler, "mystery", "mystery")
    assert scheduler.running == {"mystery": [a, b]}
    assert not scheduler.waiting


def test_a_request_too_many_is_refused_and_leaves_no_trace():
    scheduler = Scheduler(slots=1, queue_size=1, loaded_models=1)
    a, b = added(scheduler, "mystery", "mystery")
    with pytest.raises(BusyError, match=r"mystery is busy .*written: 1, waiting: 1"):
        scheduler.add(Request())
    assert scheduler.requests() == [a, b]


def test_an_ended_request_makes_room_for_the_oldest_waiting():
    scheduler = Scheduler(slots=1, queue_size=2, loaded_models=1)
    a, b, c = added(scheduler, "mystery", "mystery", "mystery")
    scheduler.remove(a)
    assert scheduler.running == {"mystery": [b]}
    assert list(scheduler.waiting) == [c]


def test_a_waiting_request_can_leave():
    scheduler = Scheduler(slots=1, queue_size=2, loaded_models=1)
    a, b, c = added(scheduler, "mystery", "mystery", "mystery")
    scheduler.remove(b)
    scheduler.remove(b)
    assert scheduler.requests() == [a, c]


def test_another_model_with_a_free_slot_is_not_held_up_by_a_full_one():
    scheduler = Scheduler(slots=1, queue_size=2, loaded_models=2)
    a, b, c = added(scheduler, "mystery", "mystery", "fantasy")
    assert scheduler.running == {"mystery": [a], "fantasy": [c]}
    assert list(scheduler.waiting) == [b]


def test_no_more_models_run_than_fit_in_memory():
    scheduler = Scheduler(slots=4, queue_size=2, loaded_models=1)
    a, b = added(scheduler, "mystery", "fantasy")
    assert list(scheduler.waiting) == [b]
    scheduler.remove(a)
    assert scheduler.running == {"fantasy": [b]}


def test_nobody_overtakes_a_request_that_waits_for_a_model_to_leave():
    scheduler = Scheduler(slots=4, queue_size=2, loaded_models=1)
    a, b, c = added(scheduler, "mystery", "fantasy", "mystery")
    assert list(scheduler.waiting) == [b, c]
    scheduler.remove(a)
    assert scheduler.running == {"fantasy": [b]}


def test_models_take_turns():
    scheduler = Scheduler(slots=2, queue_size=0, loaded_models=3)
    added(scheduler, "mystery", "fantasy", "mystery", "verdict")
    turns = [scheduler.turn()[0] for _ in range(6)]
    assert turns == ["mystery", "fantasy", "verdict"] * 2


def test_a_turn_has_the_running_requests_and_none_is_nobodys():
    scheduler = Scheduler(slots=2, queue_size=2, loaded_models=1)
    a, b, c = added(scheduler, "mystery", "mystery", "mystery")
    assert scheduler.turn() == ("mystery", [a, b])
    for request in (a, b, c):
        scheduler.remove(request)
    assert scheduler.turn() is None


@given(
    st.integers(1, 3),
    st.integers(0, 4),
    st.integers(1, 2),
    st.lists(st.sampled_from("abc") | st.integers(0, 10), max_size=40),
)
def test_bounds_hold_and_all_finish_whatever_comes_and_goes(slots, queue, models, events):
    scheduler, alive = Scheduler(slots, queue, models), []
    for event in events:
        if isinstance(event, str):
            request = Request(event)
            try:
                scheduler.add(request)
                alive.append(request)
            except BusyError:
                assert len(scheduler.waiting) == queue
        elif alive:
            scheduler.remove(alive.pop(event % len(alive)))
        assert set(scheduler.requests()) == set(alive)
        assert len(scheduler.waiting) <= queue
        assert len(scheduler.running) <= models
        assert all(0 < len(running) <= slots for running in scheduler.running.values())
        assert scheduler.running or not scheduler.waiting
    while turn := scheduler.turn():
        scheduler.remove(turn[1][0])
    assert not scheduler.waiting


def test_the_scheduler_needs_no_torch():
    code = "import sys, storygen.engine.scheduler; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
