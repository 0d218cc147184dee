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
        tries.wait(str(n))
    assert len(tries._recent) <= limiter.MOST_KEYS
