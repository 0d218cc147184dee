from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from storygen.model.uncached import generate
from storygen.model.windows import window_start
from tests.conftest import random_model


@given(st.integers(1, 5000), st.integers(1, 300))
def test_a_window_fits_the_context_and_ends_at_the_last_token(n, block_size):
    start = window_start(n, block_size)
    assert 0 <= start < n
    assert n - start <= block_size


@given(st.integers(1, 5000), st.integers(4, 300))
def test_a_window_keeps_three_quarters_of_the_context(n, block_size):
    assert n - window_start(n, block_size) >= min(n, block_size - block_size // 4)


@given(st.integers(4, 300))
def test_a_window_moves_once_in_a_quarter_of_the_context(block_size):
    step = block_size // 4
    starts = [window_start(n, block_size) for n in range(1, 10 * block_size)]
    moves = [n for n in range(1, len(starts)) if starts[n] != starts[n - 1]]
    assert all(b - a == step for a, b in pairwise(moves))


def test_generate_reads_the_window_and_nothing_before_it():
    model, seen = random_model(20, block_size=8), []
    model.register_forward_pre_hook(lambda _, args: seen.append(args[0].tolist()[0]))
    written = generate(model, torch.arange(6)[None], 6, lambda logits, ids: len(ids))
    assert written == [6, 7, 8, 9, 10, 11]
    assert seen == [[*range(window_start(n, 8), n)] for n in range(6, 12)]


def test_greedy_generation_is_the_argmax_of_the_forward_pass():
    model, ids = random_model(20, block_size=8), [3, 1, 4]
    for token in generate(model, torch.tensor([ids]), 5, lambda logits, _: int(logits.argmax())):
        assert token == int(model(torch.tensor([ids]))[0, -1].argmax())
        ids.append(token)


@pytest.mark.parametrize("block_size", [1, 2, 3])
def test_the_smallest_contexts_go_on_for_ever(block_size):
    model = random_model(20, block_size=block_size)
    assert len(generate(model, torch.tensor([[1]]), 9, lambda logits, _: 2)) == 9
