"""What the windows of a user may say in a time."""

from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive

from storygen.chat import budgets
from storygen.chat.budgets import EACH_SECOND, LEAST, MOST_AT_ONCE, Budget, Budgets, measured


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_at_once_and_then_by_the_second() -> None:
    clock = Clock()
    budget = Budget(clock)
    assert budget.takes(MOST_AT_ONCE)
    assert not budget.takes(1)
    clock.now += 2
    assert budget.takes(2 * EACH_SECOND)
    assert not budget.takes(1)
    clock.now += 3600
    assert budget.takes(MOST_AT_ONCE)
    assert not budget.takes(1)


def test_small_things_count_too() -> None:
    budget = Budget(Clock())
    assert all(budget.takes(1) for _ in range(MOST_AT_ONCE // LEAST))
    assert not budget.takes(1)


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 5_000_000))))
def test_no_more_is_taken_than_there_was_time_for(said: list[tuple[float, int]]) -> None:
    clock = Clock()
    budget = Budget(clock)
    taken = 0
    for seconds, characters in said:
        clock.now += seconds
        taken += characters * budget.takes(characters)
        assert taken <= MOST_AT_ONCE + clock.now * EACH_SECOND + 1


def test_nobody_gets_a_new_budget_by_coming_anew() -> None:
    known = Budgets()
    known.of("flood").takes(MOST_AT_ONCE)
    for n in range(3 * budgets.MANY_USERS):
        known.of(f"user {n}")
    assert not known.of("flood").takes(MOST_AT_ONCE // 2)
    assert known.of("other").takes(MOST_AT_ONCE)
    assert len(known._of) <= budgets.MANY_USERS


async def test_a_window_is_gone_when_it_says_what_is_not_accepted() -> None:
    def receiving(message: Message) -> Receive:
        async def receive() -> Message:
            return message

        return measured(receive, lambda said: len(said) < 3)

    for message in (
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "ab"},
        {"type": "websocket.receive", "bytes": b"ab", "text": None},
    ):
        assert await receiving(message)() is message
    for said in ({"text": "abc"}, {"bytes": b"abc"}, {"bytes": b"abc", "text": None}):
        gone = await receiving({"type": "websocket.receive"} | said)()
        assert gone == {"type": "websocket.disconnect", "code": 1008}
