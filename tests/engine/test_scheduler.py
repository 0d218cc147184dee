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


# Users


class Oracle:
    """The rules, said anew with no regard to cost: every decision looks at everything."""

    def __init__(self, slots, queue, models, each):
        self.slots, self.queue, self.models, self.each = slots, queue, models, each
        self.running, self.waiting, self.steps = [], [], {}

    def add(self, request):
        here = {r.user for r in self.running + self.waiting}
        if not here:
            self.steps = {}
        least = min((self.steps[user] for user in here), default=0)
        if request.user not in here:
            self.steps[request.user] = max(self.steps.get(request.user, 0), least)
        self.waiting.append(request)
        self.settle(pausing=False)
        if request in self.waiting:
            own = [r for r in self.waiting if r.user == request.user]
            if len(self.waiting) > self.queue or len(own) > self.each:
                self.waiting.remove(request)
                return False
        self.settle(pausing=True)
        return True

    def remove(self, request):
        for requests in (self.running, self.waiting):
            if request in requests:
                requests.remove(request)
        self.settle(pausing=True)

    def line(self):
        def rank(request):
            earlier = self.waiting[: self.waiting.index(request)]
            n_ahead = sum(r.user == request.user for r in self.running + earlier)
            return n_ahead, self.steps[request.user], self.waiting.index(request)

        return sorted(self.waiting, key=rank)

    def at(self, model):
        return [r for r in self.running if r.model == model]

    def settle(self, pausing):
        changed = True
        while changed:
            changed = self.start_one() or (pausing and self.pause_one())

    def start_one(self):
        for request in self.line():
            used = {r.model for r in self.running}
            if request.model not in used and len(used) == self.models:
                return False
            if len(self.at(request.model)) < self.slots:
                self.waiting.remove(request)
                self.running.append(request)
                return True
        return False

    def pause_one(self):
        for request in self.line():
            here = self.at(request.model)
            if not here:
                return False
            most = max(sum(r.user == one.user for r in here) for one in here)
            if most == 1 or any(r.user == request.user for r in self.running):
                continue
            user = next(r.user for r in here if sum(o.user == r.user for o in here) == most)
            goes = [r for r in here if r.user == user][-1]
            self.waiting.remove(request)
            self.running[self.running.index(goes)] = request
            self.waiting.insert(0, goes)
            return True
        return False


@given(
    st.integers(1, 3),
    st.integers(0, 5),
    st.integers(1, 2),
    st.integers(0, 3),
    st.lists(
        st.tuples(st.sampled_from("xy"), st.sampled_from("abc"))
        | st.integers(0, 9)
        | st.just("step"),
        max_size=50,
    ),
)
def test_users_take_turns_as_the_oracle_says(slots, queue, models, each, events):
    scheduler = Scheduler(slots, queue, models, waiting_each=each)
    oracle, alive = Oracle(slots, queue, models, each), []
    for event in events:
        if event == "step":
            _, stepped = scheduler.turn() or ("", [])
            for request in stepped:
                oracle.steps[request.user] += 1
        elif isinstance(event, tuple):
            request = Request(*event)
            accepted = oracle.add(request)
            if accepted:
                scheduler.add(request)
                alive.append(request)
            else:
                with pytest.raises(BusyError):
                    scheduler.add(request)
        elif alive:
            request = alive.pop(event % len(alive))
            oracle.remove(request)
            scheduler.remove(request)
        for model in "xy":
            assert set(scheduler.running.get(model, [])) == set(oracle.at(model))
        assert scheduler.line() == oracle.line()


@given(st.lists(st.integers(1, 10), min_size=5, max_size=9), st.integers(5, 60))
def test_ten_tabs_are_written_no_more_than_one(tabs, length):
    """Jain's index of the steps of users who all have work is at least 0.95."""
    scheduler = Scheduler(slots=4, queue_size=1000, loaded_models=1)
    left, served = {}, dict.fromkeys(range(len(tabs)), 0)
    for user, n in enumerate(tabs):
        for _ in range(n):
            left[request := Request("x", user)] = length
            scheduler.add(request)
    for _ in range(40 * length):
        for request in scheduler.turn()[1]:
            served[request.user] += 1
            left[request] -= 1
            if not left[request]:  # and the tab asks for the next
                del left[request]
                scheduler.remove(request)
                left[again := Request("x", request.user)] = length
                scheduler.add(again)
    total, squares = sum(served.values()), sum(n * n for n in served.values())
    assert total**2 / (len(tabs) * squares) >= 0.95


def test_one_with_four_passages_pauses_one_for_one_with_none():
    scheduler = Scheduler(slots=4, queue_size=4, loaded_models=1)
    greedy = added(scheduler, *["mystery"] * 4)
    late = Request(user="ben")
    scheduler.add(late)
    assert scheduler.running == {"mystery": [*greedy[:3], late]}
    assert scheduler.line() == [greedy[3]]
    scheduler.remove(late)
    assert set(scheduler.running["mystery"]) == set(greedy)


def test_nobody_can_fill_the_queue_alone():
    scheduler = Scheduler(slots=1, queue_size=4, loaded_models=1, waiting_each=2)
    added(scheduler, *["mystery"] * 3)
    with pytest.raises(BusyError, match="You have 2 passages waiting"):
        scheduler.add(Request())
    scheduler.add(Request(user="ben"))


def test_whoever_rests_saves_up_nothing():
    scheduler = Scheduler(slots=1, queue_size=9, loaded_models=1)
    (first,) = added(scheduler, "mystery")
    for _ in range(100):
        scheduler.turn()
    other, last = Request(user="ben"), Request(user="cem")
    scheduler.add(other)
    scheduler.add(last)
    scheduler.remove(first)
    for _ in range(3):
        scheduler.turn()
    scheduler.add(back := Request())
    assert scheduler.line() == [last, back]


def test_a_request_without_a_prompt_holds_its_place_and_takes_no_turn():
    scheduler = Scheduler(slots=2, queue_size=0, loaded_models=1)
    scheduler.add(early := Request(is_ready=False))
    assert not scheduler.has_turn()
    scheduler.add(late := Request())
    assert scheduler.turn() == ("mystery", [late])
    early.is_ready = True
    assert scheduler.turn() == ("mystery", [early, late])


def test_models_that_do_not_fit_together_run_one_after_the_other():
    size = {"small": 1, "large": 3}
    scheduler = Scheduler(1, 9, 9, fits=lambda models: sum(size[m] for m in models) <= 3)
    small, large = added(scheduler, "small", "large")
    assert scheduler.running == {"small": [small]}
    scheduler.remove(small)
    assert scheduler.running == {"large": [large]}
