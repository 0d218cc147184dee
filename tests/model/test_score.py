import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from storygen.model.score import score_windows, token_logprobs
from storygen.model.windows import windows
from tests.conftest import random_model

V, EOT = 20, 0


def by_hand(model, ids, eot_id):
    """Each token's log-probability from a forward pass of its own."""
    W, known = model.config.block_size, [eot_id, *ids]
    logprobs = []
    for start, first, stop in windows(len(ids), W):
        for n in range(first, stop + 1):
            logits = model(torch.tensor([known[start:n]]))[0, -1]
            logprobs.append(logits.log_softmax(-1)[known[n]].item())
    return logprobs


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 12, 13, 40])
@pytest.mark.parametrize("block_size", [1, 3, 8])
def test_logprobs_match_a_forward_pass_for_each_token(n, block_size):
    model = random_model(V, block_size=block_size)
    ids = torch.randint(V, (n,), generator=torch.Generator().manual_seed(n)).tolist()
    actual = token_logprobs(model, ids, EOT)
    torch.testing.assert_close(actual, torch.tensor(by_hand(model, ids, EOT)), atol=1e-4, rtol=0)


@given(st.integers(0, 500), st.integers(1, 64))
def test_windows_predict_each_token_once_with_half_a_window_before_it(n, block_size):
    done = 0
    for start, first, stop in windows(n, block_size):
        assert first == done + 1
        assert stop - start <= block_size
        assert start == 0 or first - start >= block_size / 2
        done = stop
    assert done == n


def test_a_vocabulary_without_an_end_gives_the_first_token_equal_odds():
    model = random_model(V)
    logprobs = token_logprobs(model, [3, 5, 7], None)
    assert logprobs[0].item() == pytest.approx(-math.log(V))
    torch.testing.assert_close(logprobs[1:], token_logprobs(model, [5, 7], 3))
    assert token_logprobs(model, [], None).tolist() == []


def test_all_next_tokens_together_have_probability_one():
    model = random_model(V)
    total = sum(token_logprobs(model, [5, token], EOT)[1].exp().item() for token in range(V))
    assert total == pytest.approx(1)


def test_a_long_text_is_scored_a_window_at_a_time():
    pieces = list(score_windows(random_model(V, block_size=8), [1] * 30, EOT))
    assert [len(piece) for piece in pieces] == [8, 4, 4, 4, 4, 4, 2]
