import pytest
from hypothesis import given
from hypothesis import strategies as st

from storygen.accounts import limiter
from storygen.accounts.limiter import Limiter


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_eleventh_try_of_a_minute_waits_for_the_first_to_be_a_minute_old() -> None:
    clock = Clock()
    tries = Limiter(clock=clock)
    for second in range(10):
        clock.now = second
        assert tries.wait("ada") == 0
    assert tries.wait("ada") == 51
    clock.now = 59.5
    assert tries.wait("ada") == 1
    clock.now = 60
    assert tries.wait("ada") == 0
    assert tries.wait("ada") == 1


def test_many_addresses_share_the_tries_at_one_name_and_many_names_those_of_one_address() -> None:
    tries = Limiter(clock=Clock())
    assert [tries.wait("ada", f"from {n}") for n in range(11)] == [0] * 10 + [60]
    assert [tries.wait(f"name {n}", "from x") for n in range(11)] == [0] * 10 + [60]
    assert tries.wait("bob", "from y") == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 30)), max_size=120))
def test_no_minute_has_more_than_ten(asked: list[tuple[str, float]]) -> None:
    clock = Clock()
    tries = Limiter(clock=clock)
    taken: list[tuple[str, float]] = []
    for key, pause in asked:
        clock.now += pause
        if tries.wait(key) == 0:
            taken.append((key, clock.now))
    for key, began in taken:
        assert sum(k == key and began - 60 < moment <= began for k, moment in taken) <= 10


def test_strangers_without_number_take_no_memory() -> None:
    tries = Limiter(clock=Clock())
    for n in range(limiter.MOST_KEYS + 100):
        tries.wait(str(n), f"from {n}")
        assert len(tries._recent) <= limiter.MOST_KEYS


def guessed(tries: Limiter) -> list[int]:
    """Ten wrong guesses at Ada's password, each from elsewhere."""
    return [tries.wait("ada", f"from {n}") for n in range(10)]


def test_a_try_that_is_turned_away_has_nobody_forgotten() -> None:
    """Names that one address made up pushed Ada's out, for whom ten more were tried each time."""
    tries = Limiter(clock=Clock())
    assert guessed(tries) == [0] * 10
    taken = [tries.wait(f"name {n}", "from x") for n in range(limiter.MOST_KEYS + 5)].count(0)
    assert taken == 10
    assert tries.wait("ada", "from y") == 60


def test_whose_tries_are_used_up_is_not_forgotten_for_those_who_tried_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limiter, "MOST_KEYS", 200)
    tries = Limiter(clock=Clock())
    assert guessed(tries) == [0] * 10
    for n in range(1000):
        assert tries.wait(f"name {n}", f"network {n}") == 0
        assert len(tries._recent) <= 200
    assert tries.wait("ada", "from y") == 60


def test_whose_tries_are_over_is_forgotten_first() -> None:
    clock = Clock()
    tries = Limiter(clock=clock)
    for n in range(limiter.MOST_KEYS):
        tries.wait(str(n))
    clock.now = 60
    assert tries.wait("ada") == 0
    assert list(tries._recent) == ["ada"]
