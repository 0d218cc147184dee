"""What the windows of a user may say in a time."""

import time
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive

from storygen.chat import budgets
from storygen.chat.budgets import (
    EACH_SECOND,
    LEAST,
    MOST_AT_ONCE,
    UNHURRIED,
    Budget,
    Budgets,
    measured,
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_at_once_and_then_by_the_second() -> None:
    clock = Clock()
    budget = Budget(clock)
    assert budget.takes(UNHURRIED) == 0
    assert budget.takes(MOST_AT_ONCE - UNHURRIED) == (MOST_AT_ONCE - UNHURRIED) / EACH_SECOND
    assert budget.takes(1) is None
    clock.now += 2
    assert budget.takes(2 * EACH_SECOND) == 2
    assert budget.takes(1) is None
    clock.now += 3600
    assert budget.takes(UNHURRIED) == 0


def test_small_things_count_too() -> None:
    budget = Budget(Clock())
    assert all(budget.takes(1) == 0 for _ in range(UNHURRIED // LEAST))
    assert budget.takes(1) == LEAST / EACH_SECOND


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 5_000_000))))
def test_no_more_is_taken_than_there_was_time_for(said: list[tuple[float, int]]) -> None:
    clock = Clock()
    budget = Budget(clock)
    taken = 0
    for seconds, characters in said:
        clock.now += seconds
        if budget.takes(characters) is not None:
            taken += characters
        assert taken <= MOST_AT_ONCE + clock.now * EACH_SECOND + 1


@given(st.lists(st.integers(0, 50_000), min_size=1))
def test_who_waits_is_never_closed(said: list[int]) -> None:
    clock = Clock()
    budget = Budget(clock)
    budget.takes(UNHURRIED)
    for characters in said:
        wait = budget.takes(characters)
        assert wait is not None
        clock.now += wait


def test_nobody_gets_a_new_budget_by_coming_anew() -> None:
    known = Budgets()
    known.of("flood").takes(MOST_AT_ONCE)
    for n in range(3 * budgets.MANY_USERS):
        known.of(f"user {n}")
    assert known.of("flood").takes(MOST_AT_ONCE // 2) is None
    assert known.of("other").takes(1) == 0
    assert len(known._of) <= budgets.MANY_USERS


def receiving(message: Message, accepts: Callable[[str | bytes], float | None]) -> Receive:
    async def receive() -> Message:
        return message

    return measured(receive, accepts)


async def test_a_window_is_gone_when_it_says_what_is_not_accepted() -> None:
    def accepts(said: str | bytes) -> float | None:
        return 0 if len(said) < 3 else None

    for message in (
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "ab"},
        {"type": "websocket.receive", "bytes": b"ab", "text": None},
    ):
        assert await receiving(message, accepts)() is message
    for said in ({"text": "abc"}, {"bytes": b"abc"}, {"bytes": b"abc", "text": None}):
        gone = await receiving({"type": "websocket.receive"} | said, accepts)()
        assert gone == {"type": "websocket.disconnect", "code": 1008}


async def test_a_window_is_heard_after_its_time() -> None:
    heard = receiving({"type": "websocket.receive", "text": "ab"}, lambda _: 0.05)
    began = time.monotonic()
    assert (await heard())["text"] == "ab"
    assert time.monotonic() - began >= 0.05
