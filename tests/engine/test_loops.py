import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storygen.engine.loops import loops
from tests.engine import oracle


@pytest.mark.parametrize(
    ("period", "enough"), [(1, 24), (2, 24), (5, 24), (6, 24), (7, 28), (8, 24), (9, 27), (32, 96)]
)
def test_a_stretch_loops_from_this_many_tokens_on(period, enough):
    tokens = (list(range(period)) * 100)[:enough]
    assert loops([99, *tokens])
    assert not loops([99, *tokens[1:]])


def test_what_is_longer_than_32_tokens_is_no_loop():
    assert not loops(list(range(33)) * 10)


def test_a_loop_that_was_left_is_over():
    assert not loops([1] * 50 + [2])


def test_what_the_writer_repeated_does_not_count():
    assert loops([1] * 30, start=6)
    assert not loops([1] * 30, start=7)


def test_characters_need_four_times_as_many():
    assert not loops([1, 2, 3] * 31, scale=4)
    assert loops([1, 2, 3] * 32, scale=4)


@given(
    st.lists(st.integers(0, 2), max_size=40),
    st.lists(st.integers(0, 2), min_size=1, max_size=12),
    st.integers(0, 120),
    st.sampled_from([1, 4]),
)
def test_loops_are_those_of_the_slow_oracle(before, unit, n, scale):
    ids = before + (unit * 120)[:n]
    assert loops(ids, 0, scale) == oracle.looping(ids, scale)


BELLS = """Keeping time, time, time,
In a sort of Runic rhyme,
To the throbbing of the bells--
Of the bells, bells, bells--
To the sobbing of the bells;
Keeping time, time, time,
As he knells, knells, knells,
In a happy Runic rhyme,
To the rolling of the bells--
Of the bells, bells, bells:
To the tolling of the bells,
Of the bells, bells, bells, bells,
Bells, bells, bells--
To the moaning and the groaning of the bells."""  # Poe, 1849


@pytest.mark.parametrize("scale", [1, 4])
def test_a_poem_with_its_refrain_is_no_loop(scale):
    pieces = re.findall(r" ?\w+|\W", BELLS) if scale == 1 else list(BELLS)
    ids = [pieces.index(piece) for piece in pieces]
    assert not any(loops(ids[:n], 0, scale) for n in range(len(ids)))


def test_random_tokens_hardly_ever_loop():
    chance = random.Random(0)
    ids = [chance.randrange(3) for _ in range(5000)]
    assert not any(loops(ids[:n]) for n in range(len(ids)))
