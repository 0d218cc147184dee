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


def tried(tries: Limiter, key: str) -> int:
    """Try, unless there is to be waited; how long."""
    if not (wait := tries.wait(key)):
        tries.count(key)
    return wait


def test_the_eleventh_try_of_a_minute_waits_for_the_first_to_be_a_minute_old() -> None:
    clock = Clock()
    tries = Limiter(clock=clock)
    for second in range(10):
        clock.now = second
        assert tried(tries, "ada") == 0
    assert tried(tries, "ada") == 51
    assert tried(tries, "bob") == 0
    clock.now = 59.5
    assert tried(tries, "ada") == 1
    clock.now = 60
    assert tried(tries, "ada") == 0
    assert tried(tries, "ada") == 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 30), st.booleans()), max_size=120))
def test_no_minute_has_more_than_ten_that_were_not_taken_back(
    asked: list[tuple[str, float, bool]],
) -> None:
    clock = Clock()
    tries = Limiter(clock=clock)
    taken: list[tuple[str, float]] = []
    for key, pause, succeeds in asked:
        clock.now += pause
        if tries.wait(key):
            continue
        moment = tries.count(key)
        if succeeds:
            tries.take_back(key, moment)
        else:
            taken.append((key, moment))
    for key, began in taken:
        assert sum(k == key and began - 60 < moment <= began for k, moment in taken) <= 10


def test_what_is_taken_back_is_that_try_and_no_older_one() -> None:
    clock = Clock()
    tries = Limiter(clock=clock)
    tried(tries, "ada")
    clock.now = 30
    own = tries.count("ada")
    for _ in range(8):
        tried(tries, "ada")
    tries.take_back("ada", own)
    tries.take_back("nobody", own)
    assert tried(tries, "ada") == 0
    assert tried(tries, "ada") == 30
    clock.now = 60
    assert [tried(tries, "ada"), tried(tries, "ada")] == [0, 30]
    clock.now = 120
    tries.take_back("ada", own)
    assert tried(tries, "ada") == 0


def test_strangers_without_number_take_no_memory() -> None:
    tries = Limiter(clock=Clock())
    for n in range(limiter.MOST_KEYS + 100):
        tried(tries, str(n))
        assert len(tries._recent) <= limiter.MOST_KEYS


def guessed(tries: Limiter) -> list[int]:
    """Ten wrong guesses at Ada's password."""
    return [tried(tries, "ada") for _ in range(10)]


def test_to_ask_how_long_has_nobody_forgotten() -> None:
    """Names that were turned away pushed Ada's out, for whom ten more were tried each time."""
    tries = Limiter(clock=Clock())
    assert guessed(tries) == [0] * 10
    for n in range(limiter.MOST_KEYS + 5):
        assert tries.wait(f"name {n}") == 0
    assert list(tries._recent) == ["ada"]
    assert tried(tries, "ada") == 60


def test_whose_tries_are_used_up_is_not_forgotten_for_those_who_tried_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limiter, "MOST_KEYS", 200)
    tries = Limiter(clock=Clock())
    assert guessed(tries) == [0] * 10
    for n in range(1000):
        assert tried(tries, f"name {n}") == 0
        assert len(tries._recent) <= 200
    assert tried(tries, "ada") == 60


def test_whose_tries_are_over_is_forgotten_first() -> None:
    clock = Clock()
    tries = Limiter(clock=clock)
    for n in range(limiter.MOST_KEYS):
        tried(tries, str(n))
    clock.now = 60
    assert tried(tries, "ada") == 0
    assert list(tries._recent) == ["ada"]
